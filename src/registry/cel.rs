//! The rules a schema states in CEL (`x-kubernetes-validations`), compiled once per kind.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{LazyLock, Mutex, PoisonError},
};

use kube_cel::{
    CompiledSchema, RootContext, SchemaFormat, ValidationError, ValidationErrors, Validator, compile_schema,
};
use serde_json::Value;

use super::{
    fields::{FieldError, Problem},
    schema::Node,
};

static VALIDATOR: LazyLock<Validator> = LazyLock::new(Validator::new);

/// Objects whose transition rules are known to hold as long as nothing changes; all are forgotten when there are more.
const MOST_SETTLED: usize = 4096;

/// The compiled rules of one kind.
#[derive(Debug)]
pub struct Rules {
    /// Only the nodes that matter to a rule: the validator converts the whole value again at every node it visits.
    compiled: CompiledSchema,
    context: RootContext,
    /// What the rules of the object itself read of it.
    root_reads: Reads,
    /// Fields of the object whose rules name the version before.
    read_old: BTreeSet<String>,
    any: bool,
    /// By uid, the generation whose transition rules hold from itself to itself: what they see is the same at every write of the
    /// metadata.
    settled: Mutex<HashMap<String, i64>>,
}

/// Which fields of an object rules read.
#[derive(Debug, Default, PartialEq, Eq)]
enum Reads {
    /// Any, or the version before.
    Everything,
    Fields(BTreeSet<String>),
    /// There are no such rules.
    #[default]
    Nothing,
}

impl Default for Rules {
    /// No rules.
    fn default() -> Self {
        Self {
            compiled: compile_schema(&Value::Null),
            context: RootContext::default(),
            root_reads: Reads::Nothing,
            read_old: BTreeSet::new(),
            any: false,
            settled: Mutex::default(),
        }
    }
}

impl Rules {
    /// Fails on the first rule that does not compile: an object could never pass it.
    pub fn compile(schema: &Value, context: RootContext) -> Result<Self, String> {
        let mut compiled = compile_schema(schema);
        if let Some(error) = first_error(&compiled) {
            return Err(error);
        }
        let any = has_rules(&compiled);
        keep_what_rules_see(&mut compiled);
        let has_branches = children(&compiled).count() > compiled.properties.len();
        let root_reads = if has_branches { Reads::Everything } else { Reads::of(schema) };
        let reads_old = |(_, schema): &(&String, &Value)| schema.to_string().contains("oldSelf");
        let fields = schema["properties"].as_object().into_iter().flatten();
        let read_old = fields.filter(reads_old).map(|(field, _)| field.clone()).collect();
        Ok(Self { compiled, context, root_reads, read_old, any, settled: Mutex::default() })
    }

    /// `object` has its defaults, and its generation. `old` is the version before, for transition rules; none at create.
    ///
    /// What has not changed is not checked again, as upstream (KEP-4008): a rule that came later refuses nothing that was there
    /// before.
    pub fn check(&self, object: &Value, old: Option<&Value>, node: &Node) -> Vec<FieldError> {
        if !self.any {
            return Vec::new();
        }
        if !self.is_root_settled(object, old) {
            return self.check_all(object, old, node);
        }
        let mut errors = Vec::new();
        for field in self.compiled.properties.keys().filter(|field| self.is_seen(field, object, old)) {
            errors.extend(self.check_field(field, object, old, node));
        }
        if errors.is_empty() {
            self.remember(object, old);
        }
        // The fields come in no order.
        errors.sort_by(|a, b| a.field.cmp(&b.field));
        errors
    }

    /// As [`Rules::check`] where nothing but the status may differ from the version before. Rules of other fields see what they saw, and
    /// are not asked; nor are their transitions, for which upstream does ask: a wish that stays is none. Where the object's own rules
    /// look at the status they are asked, and all others with them.
    pub fn check_status(&self, object: &Value, old: &Value, node: &Node) -> Vec<FieldError> {
        const STATUS: &str = "status";
        if !self.any {
            return Vec::new();
        }
        if !self.is_root_settled(object, Some(old)) {
            return self.check_all(object, Some(old), node);
        }
        match self.is_seen(STATUS, object, Some(old)) {
            true => self.check_field(STATUS, object, Some(old), node),
            false => Vec::new(),
        }
    }

    fn check_all(&self, object: &Value, old: Option<&Value>, node: &Node) -> Vec<FieldError> {
        let (object, old) = (visible(object), old.map(visible));
        let found =
            VALIDATOR.validate_compiled_with_context(&self.compiled, &object, old.as_ref(), Some(&self.context));
        complaints(found, "", node)
    }

    /// The rules of one field, and below it.
    fn check_field(&self, field: &str, object: &Value, old: Option<&Value>, node: &Node) -> Vec<FieldError> {
        let Some((rules, value)) = self.compiled.properties.get(field).zip(object.get(field)) else {
            return Vec::new();
        };
        let old = old.and_then(|old| old.get(field));
        let found = match field {
            "metadata" => {
                let old = old.map(names);
                VALIDATOR.validate_compiled_with_context(rules, &names(value), old.as_ref(), None)
            }
            _ => VALIDATOR.validate_compiled_with_context(rules, value, old, None),
        };
        complaints(found, field, node)
    }

    /// Whether the rules of the object itself say what they said of the version before.
    fn is_root_settled(&self, object: &Value, old: Option<&Value>) -> bool {
        match (&self.root_reads, old) {
            (Reads::Nothing, _) => true,
            (Reads::Fields(fields), Some(old)) => fields.iter().all(|field| is_same(field, object, old)),
            (Reads::Everything, _) | (Reads::Fields(_), None) => false,
        }
    }

    fn is_seen(&self, field: &str, object: &Value, old: Option<&Value>) -> bool {
        let Some(old) = old else { return true };
        !is_same(field, object, old) || self.read_old.contains(field) && !self.is_settled(field, object)
    }

    fn is_settled(&self, field: &str, object: &Value) -> bool {
        // The generation says nothing of the status.
        let counts = field != "status" && field != "metadata";
        let settled = || self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        counts && identity(object).is_some_and(|(uid, generation)| settled().get(uid) == Some(&generation))
    }

    fn remember(&self, object: &Value, old: Option<&Value>) {
        let Some((old, (uid, generation))) = old.zip(identity(object)) else { return };
        let mut fields = self.read_old.iter().filter(|field| *field != "status" && *field != "metadata").peekable();
        if fields.peek().is_none() || !fields.all(|field| is_same(field, object, old)) {
            return;
        }
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        if settled.len() >= MOST_SETTLED {
            settled.clear();
        }
        settled.insert(uid.to_owned(), generation);
    }
}

impl Reads {
    /// Of the rules that stand at the object itself.
    fn of(schema: &Value) -> Self {
        let rules = schema["x-kubernetes-validations"].as_array().map(Vec::as_slice).unwrap_or_default();
        if rules.is_empty() {
            return Reads::Nothing;
        }
        let mut fields = BTreeSet::new();
        for rule in rules.iter().filter_map(|rule| rule["rule"].as_str()) {
            match fields_read(rule) {
                Some(read) => fields.extend(read),
                None => return Reads::Everything,
            }
        }
        Reads::Fields(fields)
    }
}

/// The fields that follow `self` wherever it stands; None where it may be any. Errs on the side of too many: the text is not
/// parsed, and `self` in a literal counts as well.
fn fields_read(rule: &str) -> Option<BTreeSet<String>> {
    if rule.contains("oldSelf") {
        return None;
    }
    let field = |after: &str| {
        let name = after.strip_prefix('.')?;
        let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len());
        // Names that CEL cannot have are written with double underscores.
        Some(name[..end].to_owned()).filter(|name| !name.is_empty() && !name.contains("__"))
    };
    rule.split("self").skip(1).map(field).collect()
}

fn identity(object: &Value) -> Option<(&str, i64)> {
    let metadata = &object["metadata"];
    Some((metadata["uid"].as_str()?, metadata["generation"].as_i64()?))
}

fn is_same(field: &str, object: &Value, old: &Value) -> bool {
    match (field, object.get(field), old.get(field)) {
        ("metadata", Some(now), Some(old)) => ["name", "generateName"].iter().all(|name| now[name] == old[name]),
        (_, now, old) => now == old,
    }
}

/// Of metadata, rules see the names alone, as upstream.
fn visible(object: &Value) -> Value {
    let Value::Object(fields) = object else { return object.clone() };
    let fields = fields.iter().map(|(key, value)| match key.as_str() {
        "metadata" => (key.clone(), names(value)),
        _ => (key.clone(), value.clone()),
    });
    Value::Object(fields.collect())
}

fn names(metadata: &Value) -> Value {
    let names = ["name", "generateName"].into_iter();
    Value::Object(names.filter_map(|name| Some((name.to_owned(), metadata.get(name)?.clone()))).collect())
}

fn children(schema: &CompiledSchema) -> impl Iterator<Item = &CompiledSchema> {
    let single = schema.items.as_deref().into_iter().chain(schema.additional_properties.as_deref());
    let branches = schema.all_of.iter().chain(&schema.any_of).chain(&schema.one_of);
    schema.properties.values().chain(single).chain(branches)
}

fn has_rules(schema: &CompiledSchema) -> bool {
    !schema.validations.is_empty() || children(schema).any(has_rules)
}

/// Drops the nodes below which there is neither a rule nor anything that changes how a value looks to one. True when
/// this node itself is to stay.
fn keep_what_rules_see(schema: &mut CompiledSchema) -> bool {
    schema.properties.retain(|_, child| keep_what_rules_see(child));
    schema.items.take_if(|child| !keep_what_rules_see(child));
    schema.additional_properties.take_if(|child| !keep_what_rules_see(child));
    for branches in [&mut schema.all_of, &mut schema.any_of, &mut schema.one_of] {
        branches.retain_mut(keep_what_rules_see);
    }
    let looks_different = schema.is_map || schema.embedded_resource || !matches!(schema.format, SchemaFormat::None);
    looks_different || !schema.validations.is_empty() || children(schema).next().is_some()
}

fn first_error(schema: &CompiledSchema) -> Option<String> {
    let own = schema.compilation_errors().first().map(ToString::to_string);
    own.or_else(|| children(schema).find_map(first_error))
}

/// What was found wrong in the field of the object that is called so; in the object itself where that is empty.
fn complaints(found: Result<(), ValidationErrors>, within: &str, node: &Node) -> Vec<FieldError> {
    let errors = found.err().map(ValidationErrors::into_vec).into_iter().flatten();
    errors.map(|error| complaint(error, within, node)).collect()
}

/// Upstream shows the type of the place that states the rule, not its value. With a `fieldPath` that place lies above
/// the field complained of, and is an object.
fn complaint(error: ValidationError, within: &str, node: &Node) -> FieldError {
    let below = error.field_path.trim_start_matches('.');
    let field = match (within, below) {
        ("", below) => below.to_owned(),
        (within, "") => within.to_owned(),
        (within, below) if below.starts_with('[') => format!("{within}{below}"),
        (within, below) => format!("{within}.{below}"),
    };
    let states_rule = |n: &&Node| n.rules.contains(&error.rule);
    let value = node.at(&field).filter(states_rule).and_then(|n| n.type_).map_or("object", |t| t.as_str()).into();
    let detail = error.message;
    let problem = match error.reason.as_deref() {
        Some("FieldValueRequired") => Problem::Required { detail },
        Some("FieldValueForbidden") => Problem::Forbidden { detail },
        Some("FieldValueDuplicate") => Problem::Duplicate { value },
        _ => Problem::Invalid { value, detail },
    };
    FieldError { field, problem }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn checked(rule: &str, object: Value, old: Option<Value>) -> usize {
        let x = json!({"type": "object", "properties": {"x": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": rule, "message": "no"}]});
        let schema = json!({"type": "object", "properties": {"spec": x, "status": {"type": "object"}}});
        let rules = Rules::compile(&schema, RootContext::default()).expect("a rule that compiles");
        rules.check(&object, old.as_ref(), &Node::parse(&schema).expect("a schema")).len()
    }

    #[test]
    fn what_has_not_changed_is_not_checked_again() {
        let with = |x: i64, phase: &str| json!({"spec": {"x": x}, "status": {"phase": phase}});
        let small = "self.x < 10";
        assert_eq!(checked(small, with(20, "a"), None), 1, "at create all is new");
        assert_eq!(checked(small, with(20, "b"), Some(with(20, "a"))), 0, "the rule came after the object");
        assert_eq!(checked(small, with(21, "a"), Some(with(20, "a"))), 1);
        let rises = "self.x > oldSelf.x";
        assert_eq!(checked(rises, with(21, "a"), Some(with(20, "a"))), 0);
        assert_eq!(checked(rises, with(20, "b"), Some(with(20, "a"))), 1, "of what a transition is, the rule decides");
    }

    #[rstest]
    #[case("self.metadata.name.matches('a')", Some(&["metadata"][..]))]
    #[case("has(self.a.b) && self.c == self.a.d", Some(&["a", "c"][..]))]
    #[case("true", Some(&[][..]))]
    #[case("size(self) > 1", None)]
    #[case("self['a']", None)]
    #[case("self.__namespace__ == 'x'", None)]
    #[case("self.a == oldSelf.a", None)]
    fn a_rule_reads(#[case] rule: &str, #[case] fields: Option<&[&str]>) {
        let expected = fields.map(|fields| fields.iter().map(|field| (*field).to_owned()).collect());
        assert_eq!(fields_read(rule), expected);
    }

    /// `rule` at the object, and no other.
    fn of_object(rule: &str, object: Value, old: Value) -> usize {
        let part = json!({"type": "object", "properties": {"x": {"type": "integer"}}});
        let schema = json!({"type": "object", "properties": {"spec": part, "status": part},
            "x-kubernetes-validations": [{"rule": rule, "message": "no"}]});
        let rules = Rules::compile(&schema, RootContext::default()).expect("a rule that compiles");
        rules.check(&object, Some(&old), &Node::parse(&schema).expect("a schema")).len()
    }

    #[rstest]
    #[case::what_it_reads_changes("self.spec.x < 10", 21, 1, 1)]
    #[case::something_else_changes("self.spec.x < 10", 20, 2, 0)]
    #[case::it_reads_what_changes("self.spec.x < self.status.x", 20, 2, 1)]
    #[case::it_may_read_anything("has(self.status) && self.spec.x + size(self.status) < 10", 20, 2, 1)]
    #[case::it_reads_the_version_before("self.spec.x < 10 || oldSelf.spec.x < 10", 20, 2, 1)]
    fn a_rule_of_the_object_is_asked_again_when(
        #[case] rule: &str,
        #[case] spec: i64,
        #[case] status: i64,
        #[case] errors: usize,
    ) {
        let object = |spec: i64, status: i64| json!({"spec": {"x": spec}, "status": {"x": status}});
        assert_eq!(of_object(rule, object(spec, status), object(20, 1)), errors);
    }

    #[test]
    fn a_transition_that_holds_is_not_asked_again_within_a_generation() {
        let x = json!({"type": "object", "properties": {"x": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.x >= oldSelf.x", "message": "no"}]});
        let schema = json!({"type": "object", "properties": {"spec": x}});
        let node = Node::parse(&schema).expect("a schema");
        let rules = Rules::compile(&schema, RootContext::default()).expect("a rule that compiles");
        let object =
            |generation: i64, x: i64| json!({"metadata": {"uid": "u", "generation": generation}, "spec": {"x": x}});
        let errors = |now: (i64, i64), before: (i64, i64)| {
            rules.check(&object(now.0, now.1), Some(&object(before.0, before.1)), &node).len()
        };
        assert_eq!(errors((1, 5), (1, 5)), 0);
        assert!(rules.is_settled("spec", &object(1, 5)));
        assert_eq!(errors((2, 4), (1, 5)), 1, "a change is always asked");
        assert_eq!(errors((2, 6), (1, 5)), 0);
        assert!(!rules.is_settled("spec", &object(2, 6)), "from another to this one is not from this one to itself");
    }
}
