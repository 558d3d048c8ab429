//! An object as a Rust type, made when it is first asked for. Controllers list all cards, claims and workloads at every pass;
//! decoding them each time was most of what a pass cost.

use std::{
    any::Any,
    sync::{Arc, OnceLock},
};

/// Empty, or what the object was decoded into. Says nothing that the object does not: two versions are equal without it.
#[derive(Debug, Default)]
pub(super) struct Decoded(OnceLock<Arc<dyn Any + Send + Sync>>);

impl Decoded {
    /// What `decode` makes of the object. Kept for the type that was asked for first, which is the only one in practice.
    pub fn get<K: Send + Sync + 'static, E>(&self, decode: impl FnOnce() -> Result<K, E>) -> Result<Arc<K>, E> {
        if let Some(found) = self.0.get().and_then(|kept| kept.clone().downcast::<K>().ok()) {
            return Ok(found);
        }
        let made = Arc::new(decode()?);
        // Somebody else may have been faster: theirs is as good.
        self.0.set(made.clone()).ok();
        Ok(made)
    }

    /// For another copy of the same object.
    pub fn share(&self) -> Self {
        Self(self.0.get().cloned().map_or_else(OnceLock::new, OnceLock::from))
    }
}

impl PartialEq for Decoded {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_made_once_and_shared() {
        let decoded = Decoded::default();
        let first = decoded.get(|| Ok::<_, ()>("made".to_owned())).expect("made");
        let fails = || Err::<String, _>("made already");
        assert!(Arc::ptr_eq(&first, &decoded.get(fails).expect("kept")));
        assert!(Arc::ptr_eq(&first, &decoded.share().get(fails).expect("shared")));
    }

    #[test]
    fn another_type_is_decoded_too() {
        let decoded = Decoded::default();
        decoded.get(|| Ok::<_, ()>(1u8)).expect("a byte");
        assert_eq!(*decoded.get(|| Ok::<_, ()>(2i64)).expect("a number"), 2);
    }

    #[test]
    fn what_does_not_fit_is_told_each_time() {
        let decoded = Decoded::default();
        for _ in 0..2 {
            assert!(decoded.get(|| Err::<u8, _>("no byte")).is_err());
        }
    }
}
