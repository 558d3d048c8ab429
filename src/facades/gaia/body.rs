//! Bodies, read as GAIA's own service read them: JSON whatever the content type says, numbers and flags coerced, unknown
//! fields passed over, and everything that is wrong told at once in the words of its validator.

use serde_json::{Map, Value, json};

use super::reply::Refusal;

/// The fields of a body, and what has been found wrong with them.
#[derive(Debug, Default)]
pub struct Fields {
    values: Map<String, Value>,
    faults: Vec<Value>,
}

impl Fields {
    /// None: no body was sent, or `null`.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, Refusal> {
        if bytes.trim_ascii().is_empty() {
            return Ok(None);
        }
        let value = serde_json::from_slice(bytes).map_err(|error| {
            let at = if error.is_eof() { bytes.len() } else { offset(bytes, error.line(), error.column()) };
            let context = json!({"error": error.to_string()});
            Refusal::invalid(vec![json!({
                "type": "json_invalid", "loc": ["body", at], "msg": "JSON decode error", "input": {}, "ctx": context,
            })])
        })?;
        match value {
            Value::Null => Ok(None),
            Value::Object(values) => Ok(Some(Self { values, faults: Vec::new() })),
            other => Err(Refusal::invalid(vec![json!({
                "type": "model_attributes_type", "loc": ["body"],
                "msg": "Input should be a valid dictionary or object to extract fields from", "input": other,
            })])),
        }
    }

    /// As [`parse`](Self::parse), where a body there must be.
    pub fn required(bytes: &[u8]) -> Result<Self, Refusal> {
        let none = || json!({"type": "missing", "loc": ["body"], "msg": "Field required", "input": null});
        Self::parse(bytes)?.ok_or_else(|| Refusal::invalid(vec![none()]))
    }

    /// As [`parse`](Self::parse); no body says nothing.
    pub fn optional(bytes: &[u8]) -> Result<Self, Refusal> {
        Ok(Self::parse(bytes)?.unwrap_or_default())
    }

    /// Ends the reading: what was found wrong is told.
    pub fn done(self) -> Result<(), Refusal> {
        if self.faults.is_empty() { Ok(()) } else { Err(Refusal::invalid(self.faults)) }
    }

    pub fn text(&mut self, name: &str) -> Option<String> {
        match self.values.get(name)? {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            _ => self.fault(name, "string_type", "Input should be a valid string"),
        }
    }

    /// Must be there, and not null.
    pub fn required_text(&mut self, name: &str) -> String {
        match self.values.get(name) {
            Some(Value::Null) => self.fault(name, "string_type", "Input should be a valid string"),
            Some(_) => self.text(name),
            None => self.missing(name),
        }
        .unwrap_or_default()
    }

    pub fn integer(&mut self, name: &str) -> Option<i64> {
        const FRACTION: &str = "Input should be a valid integer, got a number with a fractional part";
        const UNPARSED: &str = "Input should be a valid integer, unable to parse string as an integer";
        match self.values.get(name)? {
            Value::Null => None,
            Value::Bool(flag) => Some(i64::from(*flag)),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => Some(whole),
                (None, Some(real)) if real.fract() == 0.0 => Some(real as i64),
                (None, _) => self.fault(name, "int_from_float", FRACTION),
            },
            Value::String(text) => match whole(text) {
                Some(whole) => Some(whole),
                None => self.fault(name, "int_parsing", UNPARSED),
            },
            Value::Array(_) | Value::Object(_) => self.fault(name, "int_type", "Input should be a valid integer"),
        }
    }

    pub fn flag(&mut self, name: &str) -> Option<bool> {
        const UNPARSED: &str = "Input should be a valid boolean, unable to interpret input";
        let word = match self.values.get(name)? {
            Value::Null => return None,
            Value::Bool(flag) => return Some(*flag),
            Value::Number(number) => number.to_string(),
            Value::String(text) => text.to_lowercase(),
            Value::Array(_) | Value::Object(_) => {
                return self.fault(name, "bool_type", "Input should be a valid boolean");
            }
        };
        match word.as_str() {
            "1" | "1.0" | "true" | "t" | "yes" | "y" | "on" => Some(true),
            "0" | "0.0" | "false" | "f" | "no" | "n" | "off" => Some(false),
            _ => self.fault(name, "bool_parsing", UNPARSED),
        }
    }

    /// A list of texts that nobody reads any more; only its form counts.
    pub fn list(&mut self, name: &str) {
        if self.values.get(name).is_some_and(|value| !value.is_array() && !value.is_null()) {
            self.fault::<()>(name, "list_type", "Input should be a valid list");
        }
    }

    /// One of the words, exactly as written.
    pub fn one_of<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Option<T> {
        let given = self.values.get(name).filter(|value| !value.is_null())?;
        let found = given.as_str().and_then(|given| words.iter().find(|(word, _)| *word == given));
        match found {
            Some((_, value)) => Some(*value),
            None => {
                let expected = listed(words.iter().map(|(word, _)| *word));
                let fault = json!({
                    "type": "enum", "loc": ["body", name], "msg": format!("Input should be {expected}"), "input": given,
                    "ctx": {"expected": expected},
                });
                self.faults.push(fault);
                None
            }
        }
    }

    /// As [`one_of`](Self::one_of); must be there.
    pub fn required_one_of<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Option<T> {
        match self.values.get(name) {
            None => self.missing(name),
            Some(Value::Null) => {
                // A null is no word either.
                self.values.insert(name.to_owned(), Value::String(String::new()));
                self.one_of(name, words)
            }
            Some(_) => self.one_of(name, words),
        }
    }

    fn missing<T>(&mut self, name: &str) -> Option<T> {
        let fault = json!({"type": "missing", "loc": ["body", name], "msg": "Field required", "input": self.values});
        self.faults.push(fault);
        None
    }

    fn fault<T>(&mut self, name: &str, type_: &str, message: &str) -> Option<T> {
        let input = self.values.get(name);
        self.faults.push(json!({"type": type_, "loc": ["body", name], "msg": message, "input": input}));
        None
    }
}

/// `5`, `+5`, `5.0`, with blanks around.
fn whole(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits =
        text.split_once('.').filter(|(_, rest)| rest.chars().all(|c| c == '0')).map_or(text, |(whole, _)| whole);
    digits.parse().ok()
}

/// `'a', 'b' or 'c'`
fn listed<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.map(|word| format!("'{word}'")).collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => String::new(),
    }
}

/// Bytes before a place that is given as line and column, both from 1.
fn offset(bytes: &[u8], line: usize, column: usize) -> usize {
    let before =
        bytes.split(|byte| *byte == b'\n').take(line.saturating_sub(1)).map(|line| line.len() + 1).sum::<usize>();
    before + column.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn fields(body: Value) -> Fields {
        Fields::required(body.to_string().as_bytes()).expect("an object")
    }

    #[rstest]
    #[case(json!(5), Some(5))]
    #[case(json!(1.0), Some(1))]
    #[case(json!("5"), Some(5))]
    #[case(json!(" 7.0 "), Some(7))]
    #[case(json!(-3), Some(-3))]
    #[case(json!(null), None)]
    fn whole_numbers_are_coerced(#[case] given: Value, #[case] read: Option<i64>) {
        let mut fields = fields(json!({"n": given}));
        assert_eq!(fields.integer("n"), read);
        assert_eq!(fields.done(), Ok(()));
    }

    #[rstest]
    #[case(json!(5.5), "int_from_float")]
    #[case(json!("five"), "int_parsing")]
    #[case(json!([5]), "int_type")]
    fn other_numbers_are_refused(#[case] given: Value, #[case] type_: &str) {
        let mut fields = fields(json!({"n": given}));
        assert_eq!(fields.integer("n"), None);
        let refusal = fields.done().expect_err("refused");
        assert_eq!(refusal.detail[0]["type"], type_);
        assert_eq!(refusal.detail[0]["loc"], json!(["body", "n"]));
        assert_eq!(refusal.detail[0]["input"], given);
    }

    #[test]
    fn flags_have_many_words() {
        for word in [json!(true), json!(1), json!("yes"), json!("On"), json!("TRUE")] {
            assert_eq!(fields(json!({"f": word})).flag("f"), Some(true), "{word}");
        }
        for word in [json!(false), json!(0), json!("no"), json!("off")] {
            assert_eq!(fields(json!({"f": word})).flag("f"), Some(false), "{word}");
        }
        let mut odd = fields(json!({"f": "maybe"}));
        assert_eq!(odd.flag("f"), None);
        assert_eq!(odd.done().expect_err("refused").detail[0]["type"], "bool_parsing");
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let mut fields = fields(json!({"who": "somebody", "reason": null}));
        assert_eq!(fields.required_one_of("who", &[("a", 1), ("b", 2)]), None);
        fields.required_text("reason");
        fields.required_text("absent");
        let detail = fields.done().expect_err("refused").detail;
        assert_eq!(detail[0]["msg"], "Input should be 'a' or 'b'");
        assert_eq!(detail[0]["ctx"], json!({"expected": "'a' or 'b'"}));
        assert_eq!(detail[1]["type"], "string_type");
        assert_eq!(detail[2]["type"], "missing");
    }

    #[test]
    fn what_is_no_object_is_refused_and_nothing_is_nothing() {
        assert!(Fields::parse(b"  ").expect("nothing").is_none());
        assert!(Fields::parse(b"null").expect("nothing").is_none());
        assert_eq!(Fields::required(b"").expect_err("a body is needed").detail[0]["loc"], json!(["body"]));
        assert_eq!(Fields::parse(b"[1]").expect_err("no object").detail[0]["type"], "model_attributes_type");
        let broken = Fields::parse(b"{\"a\": x}").expect_err("no JSON");
        assert_eq!(broken.detail[0]["loc"], json!(["body", 6]));
    }
}
