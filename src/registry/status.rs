//! A write of the status takes everything else from the stored object: so only what concerns the status is done, and asked. Status is
//! what is written most.

use serde_json::{Value, json};

use super::{
    ApiError, ApiResult, Kind, Registry, Subresource, Taken, WriteOptions, apply, metadata, same, schema, size,
};
use crate::store::Version;

const STATUS: &str = "status";

/// Whether such a write changes the status of an object and nothing else. Kinds that are built in are completed at every write, and
/// are written seldom.
pub fn is_alone(kind: &Kind, subresource: Subresource) -> bool {
    subresource == Subresource::Status && kind.has_status && !kind.builtin && !kind.view
}

impl Registry {
    /// What is to be put for the status of `object`, and what it took from others who apply; None: nothing would change. `recorded`: an
    /// apply, which has seen to the managed fields.
    pub(super) fn prepare_status(
        &self,
        kind: &Kind,
        live: &Version,
        mut object: Value,
        options: &WriteOptions,
        recorded: Option<Vec<Taken>>,
    ) -> ApiResult<Option<(Value, Vec<Taken>)>> {
        metadata::check_preconditions(kind, &live.object, &object)?;
        let name = metadata::text(&live.object, "name").unwrap_or_default();
        let refuse = |errors: Vec<_>| match errors.is_empty() {
            true => Ok(()),
            false => Err(ApiError::invalid(kind, name, errors)),
        };
        let status = conformed(kind, &mut object);
        if recorded.is_none() && status.as_ref() == live.object.get(STATUS) {
            // Of a transition the rule decides, also of one from the same to the same.
            refuse(kind.rules.check_status(&live.object, &live.object, &kind.root))?;
            return Ok(None);
        }
        let mut changed = (*live.object).clone();
        put(&mut changed, STATUS, status);
        let applied = recorded.is_some();
        let taken = match recorded {
            Some(taken) => {
                let managers = object["metadata"].get_mut("managedFields").map(Value::take);
                put(&mut changed["metadata"], "managedFields", managers);
                taken
            }
            None => apply::record_status(kind, &live.object, &mut changed, options, self.clock.now()),
        };
        refuse(schema::validate_field(&changed, &kind.root, STATUS))?;
        refuse(kind.rules.check_status(&changed, &live.object, &kind.root))?;
        size::check_status(kind, name, &changed, live)?;
        let same = applied && same::same_but_times(&changed, &live.object);
        Ok((!same).then_some((changed, taken)))
    }
}

/// The status of a body, without nulls that mean nothing and with its defaults.
fn conformed(kind: &Kind, object: &mut Value) -> Option<Value> {
    let mut alone = json!({});
    put(&mut alone, STATUS, object.get_mut(STATUS).map(Value::take));
    schema::prune_nulls(&mut alone, &kind.root);
    schema::apply_defaults(&mut alone, &kind.root);
    alone.get_mut(STATUS).map(Value::take)
}

fn put(object: &mut Value, field: &str, value: Option<Value>) {
    let Some(map) = object.as_object_mut() else { return };
    match value {
        Some(value) => map.insert(field.to_owned(), value),
        None => map.remove(field),
    };
}
