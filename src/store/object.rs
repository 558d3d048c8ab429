//! One version's object as a tree, made of its text when somebody asks for it.
//!
//! A tree takes ten to fifteen times the memory of its text, and most versions are only ever passed on: the log keeps thousands that
//! nobody looks into again. So texts are what is kept, and trees for what was written lately.

use std::{borrow::Cow, fmt, ops::Deref, sync::OnceLock};

use axum::body::Bytes;
use serde::de::IgnoredAny;
use serde_json::Value;

/// Reads as the [`Value`] that it is. What was made of the text stays as long as this version does.
pub struct Object {
    json: Bytes,
    tree: OnceLock<Value>,
}

impl Object {
    /// `json` is `tree` as text.
    pub(super) fn whole(tree: Value, json: Bytes) -> Self {
        Self { json, tree: OnceLock::from(tree) }
    }

    /// Fails on what is not JSON.
    pub(super) fn stored(json: Bytes) -> Result<Self, serde_json::Error> {
        serde_json::from_slice::<IgnoredAny>(&json)?;
        Ok(Self { json, tree: OnceLock::new() })
    }

    /// The same, as text alone.
    pub(super) fn text_only(&self) -> Self {
        Self { json: self.json.clone(), tree: OnceLock::new() }
    }

    /// For those who look at many objects once: nothing is kept of it.
    pub fn peek(&self) -> Cow<'_, Value> {
        self.tree.get().map_or_else(|| Cow::Owned(parse(&self.json)), Cow::Borrowed)
    }

    /// The tree, where it has been made.
    pub(crate) fn made(&self) -> Option<&Value> {
        self.tree.get()
    }
}

fn parse(json: &[u8]) -> Value {
    serde_json::from_slice(json).expect("what is kept is JSON: serialised here, or looked over when it was read")
}

impl Deref for Object {
    type Target = Value;

    fn deref(&self) -> &Value {
        self.tree.get_or_init(|| parse(&self.json))
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.json))
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.json))
    }
}

/// Keys have one order, so equal objects have equal texts; `1` and `1.0` are as different as in a tree.
impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        self.json == other.json
    }
}

impl PartialEq<Value> for Object {
    fn eq(&self, other: &Value) -> bool {
        **self == *other
    }
}

impl PartialEq<Object> for Value {
    fn eq(&self, other: &Object) -> bool {
        *self == **other
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_tree_is_made_when_it_is_asked_for() {
        let text = Bytes::from_static(br#"{"a":[1,2.5],"b":"c"}"#);
        let object = Object::stored(text).expect("JSON");
        assert_eq!(*object.peek(), json!({"a": [1, 2.5], "b": "c"}));
        assert!(object.made().is_none(), "who peeks leaves nothing");
        assert_eq!(object["b"], "c");
        assert!(object.made().is_some());
        assert!(object.text_only().made().is_none());
        assert_eq!(object.text_only(), object);
        assert_eq!(object.to_string(), r#"{"a":[1,2.5],"b":"c"}"#);
    }

    #[test]
    fn what_is_not_json_is_refused() {
        assert!(Object::stored(Bytes::from_static(b"{\"a\":")).is_err());
        assert!(Object::stored(Bytes::from_static(b"{} {}")).is_err());
    }
}
