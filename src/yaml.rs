//! Text to documents, each value with the line it stands on. Knows YAML (and JSON, which is YAML), no kinds.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};
use serde_saphyr::{DefaultMessageFormatter, MessageFormatter, Spanned};

/// One document of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// 1-based, of its first value.
    pub line: u32,
    pub value: Value,
    pub lines: Lines,
}

/// Where each field of a document stands, by its path: `spec.ports[0].hostPort`. A tree, for a table of whole paths would grow
/// with the square of a text in which long names stand above many values.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Lines {
    line: Option<u32>,
    /// By `name`, or `[index]`.
    below: BTreeMap<String, Lines>,
}

impl Lines {
    /// The line of the field, or of the nearest one around it: a missing field is reported where it belongs.
    pub fn nearest(&self, path: &str) -> Option<u32> {
        let mut path = path;
        loop {
            if let Some(line) = self.exact(path) {
                return Some(line);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    pub fn exact(&self, path: &str) -> Option<u32> {
        self.at(path)?.line
    }

    /// The lines of the value at `path`, as if it were a document of its own.
    pub fn under(&self, path: &str) -> Lines {
        Lines { line: None, below: self.at(path).map(|found| found.below.clone()).unwrap_or_default() }
    }

    /// A name may have dots and brackets in it: every end of a step is tried, the nearest first.
    fn at(&self, path: &str) -> Option<&Lines> {
        if path.is_empty() {
            return Some(self);
        }
        let path = path.strip_prefix('.').unwrap_or(path);
        let ends = path.char_indices().skip(1).filter(|(_, c)| matches!(c, '.' | '[')).map(|(end, _)| end);
        ends.chain([path.len()]).find_map(|end| self.below.get(&path[..end])?.at(&path[end..]))
    }

    fn put(&mut self, step: String, line: u32) -> &mut Lines {
        let found = self.below.entry(step).or_default();
        found.line = Some(line);
        found
    }
}

/// The text is not YAML. None of its documents can be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SyntaxError {
    pub line: Option<u32>,
    pub message: String,
}

/// Every document of the text; empty ones are left out.
pub fn parse(text: &str) -> Result<Vec<Parsed>, SyntaxError> {
    // As YAML 1.2 and serde_yaml: `on`, `no` and `y` are text.
    let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
    let documents: Vec<Spanned<Tree>> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| syntax_error(&error))?;
    Ok(documents.into_iter().filter_map(document).collect())
}

fn document(tree: Spanned<Tree>) -> Option<Parsed> {
    let line = line_of(&tree);
    let mut lines = Lines::default();
    let value = tree.value.into_value(&mut lines);
    (!value.is_null()).then_some(Parsed { line, value, lines })
}

fn syntax_error(error: &serde_saphyr::Error) -> SyntaxError {
    let message = DefaultMessageFormatter.format_message(error.without_snippet());
    SyntaxError { line: error.location().map(|at| narrow(at.line())), message: one_line(&message) }
}

/// Text of a file may be quoted in what is said of it; a log line stays one line.
pub fn one_line(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

fn line_of<T>(spanned: &Spanned<T>) -> u32 {
    narrow(spanned.referenced.line())
}

fn narrow(line: u64) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX)
}

/// A value before its lines are taken off.
enum Tree {
    Leaf(Value),
    Sequence(Vec<Spanned<Tree>>),
    Mapping(Vec<(Spanned<String>, Spanned<Tree>)>),
}

impl Tree {
    fn into_value(self, lines: &mut Lines) -> Value {
        match self {
            Tree::Leaf(value) => value,
            Tree::Sequence(items) => items
                .into_iter()
                .enumerate()
                .map(|(index, item)| {
                    let below = lines.put(format!("[{index}]"), line_of(&item));
                    item.value.into_value(below)
                })
                .collect(),
            Tree::Mapping(fields) => Value::Object(
                fields
                    .into_iter()
                    .map(|(key, item)| {
                        let below = lines.put(key.value.clone(), line_of(&key));
                        (key.value, item.value.into_value(below))
                    })
                    .collect::<Map<_, _>>(),
            ),
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        stacker::maybe_grow(STACK_OF_A_LEVEL, STACK_MORE, || deserializer.deserialize_any(TreeVisitor))
    }
}

/// A level takes 32 KiB in a debug build, for the parser keeps a place beside each value; a worker's stack has 2 MiB.
const STACK_OF_A_LEVEL: usize = 128 * 1024;
const STACK_MORE: usize = 1024 * 1024;

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("any YAML value that JSON can hold")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut out = Vec::new();
        while let Some(item) = items.next_element()? {
            out.push(item);
        }
        Ok(Tree::Sequence(out))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Tree, A::Error> {
        let mut out = Vec::new();
        while let Some(field) = fields.next_entry()? {
            out.push(field);
        }
        Ok(Tree::Mapping(out))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_field_knows_its_line() {
        let text = "# a comment\n---\nkind: A\nspec:\n  list:\n    - name: x\n      port: 1\n    - {name: y,\n       port: 2}\n---\n---\nkind: B\n";
        let documents = parse(text).expect("is YAML");
        assert_eq!(documents.len(), 2, "the empty document is left out");
        let first = &documents[0];
        assert_eq!(first.line, 3);
        assert_eq!(
            first.value,
            json!({"kind": "A", "spec": {"list": [{"name": "x", "port": 1}, {"name": "y", "port": 2}]}})
        );
        assert_eq!(first.lines.exact("spec.list[1].port"), Some(9));
        assert_eq!(first.lines.exact("spec.list[0].port"), Some(7));
        assert_eq!(first.lines.nearest("spec.list[0].missing.deeper"), Some(6));
        assert_eq!(first.lines.nearest("metadata"), None);
        assert_eq!(first.lines.under("spec.list[1]").exact("port"), Some(9));
        assert_eq!(documents[1].line, 12);
    }

    #[test]
    fn values_are_those_of_json() {
        let text = "a: 1\nb: -2.5\nc: \"3\"\nd: true\ne: ~\nf: 18446744073709551615\ng: |\n  two\n  lines\nh: 2026-11-20\ni: {}\nj: []\non: no\n";
        let value = &parse(text).expect("is YAML")[0].value;
        assert_eq!(
            *value,
            json!({"a": 1, "b": -2.5, "c": "3", "d": true, "e": null, "f": u64::MAX, "g": "two\nlines\n",
                   "h": "2026-11-20", "i": {}, "j": [], "on": "no"})
        );
    }

    #[test]
    fn json_with_tabs_is_read() {
        let text = "{\n\t\"kind\": \"A\",\n\t\"spec\": {\n\t\t\"x\": [1, 2]\n\t}\n}\n";
        let document = &parse(text).expect("is JSON")[0];
        assert_eq!(document.value, json!({"kind": "A", "spec": {"x": [1, 2]}}));
        assert_eq!(document.lines.exact("spec.x"), Some(4));
    }

    #[test]
    fn anchors_and_merges_are_expanded_where_used() {
        let text = "base: &b\n  x: 1\nother:\n  <<: *b\n  y: 2\nalias: *b\n";
        let document = &parse(text).expect("is YAML")[0];
        assert_eq!(document.value, json!({"base": {"x": 1}, "other": {"x": 1, "y": 2}, "alias": {"x": 1}}));
        assert_eq!(document.lines.exact("alias"), Some(6));
    }

    #[test]
    fn syntax_errors_name_the_line() {
        for (text, line) in [
            ("a: 1\nb: [1, 2\nc: 3\n", None),
            ("a: 1\na: 2\n", Some(2)),
            ("a: 1\n b: 2\n", Some(2)),
            ("a: *nobody\n", Some(1)),
            ("---\na: 1\n---\nb: \"unfinished\n", None),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.line.is_some(), "{text:?}: {error:?}");
            if line.is_some() {
                assert_eq!(error.line, line, "{text:?}: {error:?}");
            }
            assert!(!error.message.contains('\n'), "{error:?}");
        }
    }

    #[test]
    fn bombs_are_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..12 {
            let aliases = vec![format!("*a{}", i - 1); 10].join(", ");
            text += &format!("a{i}: &a{i} [{aliases}]\n");
        }
        parse(&text).expect_err("is a bomb");
        parse(&"[".repeat(10_000)).expect_err("is too deep");
    }

    #[test]
    fn what_is_deep_and_allowed_overflows_no_stack() {
        let text = format!("{}1{}", "[".repeat(64), "]".repeat(64));
        let on_a_small_stack = std::thread::Builder::new().stack_size(512 * 1024).spawn(move || parse(&text).is_ok());
        assert!(on_a_small_stack.expect("a thread can be started").join().expect("it does not panic"));
    }

    #[test]
    fn names_may_look_like_paths() {
        let text = "a.b:\n  c[0]: 1\n  d: [x, {e.f: 2}]\na:\n  b: 3\n  z: 4\n";
        let lines = &parse(text).expect("is YAML")[0].lines;
        let at = |path| lines.exact(path);
        assert_eq!([at("a.b.c[0]"), at("a.b.d[1].e.f"), at("a.z"), at("a.b.d[2]")], [Some(2), Some(3), Some(6), None]);
        assert_eq!(lines.nearest("a.b.d[2].x"), Some(3));
    }

    #[test]
    fn text_without_documents_is_fine() {
        for text in ["", "# only a comment\n", "---\n", "---\n---\n", "\u{feff}"] {
            assert_eq!(parse(text), Ok(Vec::new()), "{text:?}");
        }
    }
}
