//! How large an object may become. Bodies are bounded where they are read, but many patches, and the managed fields of many
//! appliers, grow an object beyond any body; the store keeps each of its versions twice, and every reader holds it whole.

use std::io;

use serde_json::Value;

use super::{ApiError, ApiResult, Kind, Reason, Subresource};
use crate::store::Version;

/// Of the JSON of an object without its status, and of the status alone: whoever may write only one of them must not take the
/// room of the other. As etcd's default for a request, which clients count on. Both together fit into one request to us.
pub const MOST_BYTES: usize = 3 * 512 * 1024;

/// Refuses what is too large (413), unless it is no larger than `live`: what an older binary let in, or a deletion's marks
/// made larger by a little, can always be made smaller, and its finalizers can go.
pub fn check(kind: &Kind, name: &str, object: &Value, live: Option<&Value>, written: Subresource) -> ApiResult<()> {
    let status = |object: &Value| if kind.has_status { object.get("status").map_or(0, json_bytes) } else { 0 };
    let whole = json_bytes(object);
    if whole <= MOST_BYTES {
        return Ok(());
    }
    if live.is_some_and(|live| whole <= json_bytes(live)) {
        return Ok(());
    }
    let status = status(object);
    let (bytes, most, what) = match written {
        Subresource::Main => (whole - status, MOST_BYTES, "without its status"),
        Subresource::Status if status > MOST_BYTES => (status, MOST_BYTES, "in its status"),
        // The rest grows too: by who wrote the status.
        Subresource::Status => (whole, 2 * MOST_BYTES, "as a whole"),
    };
    if bytes <= most {
        return Ok(());
    }
    let what = if kind.has_status { format!(" {what}") } else { String::new() };
    let message = format!(
        "{} {name:?} is too large: it would take {bytes} bytes{what}, the limit is {most}",
        kind.qualified_plural()
    );
    Err(ApiError::about(kind, name, Reason::RequestEntityTooLarge, message))
}

/// As [`check`] for a write of the status: most often the text of the version before says that there is room, and the object is not
/// gone through.
pub fn check_status(kind: &Kind, name: &str, object: &Value, live: &Version) -> ApiResult<()> {
    let new = json_bytes(&object["status"]) + json_bytes(&object["metadata"]["managedFields"]);
    if live.json.len() + new <= MOST_BYTES {
        return Ok(());
    }
    check(kind, name, object, Some(&live.object), Subresource::Status)
}

/// Of the compact JSON, which is not made.
fn json_bytes(value: &Value) -> usize {
    struct Count(usize);

    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).expect("a Value has string keys, and counting does not fail");
    count.0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_text() {
        for value in [json!(null), json!({"a": [1, 2.5, "é\"\n"], "b": {}}), json!("x".repeat(1000))] {
            assert_eq!(json_bytes(&value), value.to_string().len());
        }
    }
}
