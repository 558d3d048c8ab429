//! An object as a Rust type, made when it is first asked for. Controllers list all cards, claims and workloads at every pass;
//! decoding them each time was most of what a pass cost.

use std::{
    any::Any,
    sync::{Arc, OnceLock},
};

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Empty, or what the object was decoded into. Says nothing that the object does not: two versions are equal without it.
#[derive(Debug, Default)]
pub struct Decoded(OnceLock<Arc<dyn Any + Send + Sync>>);

impl Decoded {
    /// `object` as a `K`. Kept for the type that was asked for first, which is the only one in practice.
    pub fn get<K: DeserializeOwned + Send + Sync + 'static>(
        &self,
        object: &Value,
    ) -> Result<Arc<K>, serde_json::Error> {
        if let Some(found) = self.0.get().and_then(|kept| kept.clone().downcast::<K>().ok()) {
            return Ok(found);
        }
        let made = Arc::new(K::deserialize(object)?);
        // Somebody else may have been faster: theirs is as good.
        self.0.set(made.clone()).ok();
        Ok(made)
    }
}

impl PartialEq for Decoded {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn is_made_once_and_shared() {
        let (decoded, object) = (Decoded::default(), json!(["a", "b"]));
        let first = decoded.get::<Vec<String>>(&object).expect("strings");
        assert_eq!(*first, ["a", "b"]);
        assert!(Arc::ptr_eq(&first, &decoded.get::<Vec<String>>(&object).expect("strings")));
    }

    #[test]
    fn another_type_is_decoded_too() {
        let (decoded, object) = (Decoded::default(), json!([1, 2]));
        decoded.get::<Vec<u8>>(&object).expect("bytes");
        assert_eq!(*decoded.get::<Vec<i64>>(&object).expect("numbers"), [1, 2]);
    }

    #[test]
    fn what_does_not_fit_is_told_each_time() {
        let (decoded, object) = (Decoded::default(), json!({}));
        for _ in 0..2 {
            assert!(decoded.get::<Vec<u8>>(&object).is_err());
        }
    }
}
