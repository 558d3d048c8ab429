//! Rows with their checksums: how they are bound, read back and verified.

use axum::body::Bytes;
use rusqlite::{
    Row as SqlRow,
    types::{ToSqlOutput, Value as SqlValue, ValueRef},
};

use super::super::{ChangeKind, Entry, Key, Revision, Row};

/// A row that is not what was written.
pub(super) struct Bad {
    /// The key as it reads now, which may itself be wrong.
    pub key: String,
    pub why: String,
}

/// Text for SQLite that is known to be UTF-8 already.
pub(super) fn text(bytes: &[u8]) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(ValueRef::Text(bytes))
}

pub(super) fn integer(revision: Revision) -> ToSqlOutput<'static> {
    ToSqlOutput::Owned(SqlValue::Integer(revision.0.cast_signed()))
}

pub(super) fn word(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Created => "created",
        ChangeKind::Updated => "updated",
        ChangeKind::Deleted => "deleted",
    }
}

/// The checksum of an object's row.
pub(super) fn object_checksum(row: &Row) -> u32 {
    checksum(&[b"object", row.key.as_str().as_bytes(), &row.revision.0.to_be_bytes(), &row.json])
}

/// The checksum of a log row. Other than an object's, also of the same write, so that no row passes for another.
pub(super) fn entry_checksum(entry: &Entry) -> u32 {
    let row = &entry.row;
    let (previous, json): (u64, &[u8]) = match &entry.previous {
        Some((revision, json)) => (revision.0, json),
        None => (0, b""),
    };
    checksum(&[
        word(entry.kind).as_bytes(),
        row.key.as_str().as_bytes(),
        &row.revision.0.to_be_bytes(),
        &row.json,
        &previous.to_be_bytes(),
        json,
    ])
}

fn checksum(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in parts {
        hasher.update(&part.len().to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize()
}

/// Columns `key, rv, value, checksum`.
pub(super) fn read_object(row: &SqlRow<'_>) -> rusqlite::Result<Result<Row, Bad>> {
    let columns = [row.get_ref(0)?, row.get_ref(1)?, row.get_ref(2)?, row.get_ref(3)?];
    Ok(match columns {
        [ValueRef::Text(key), ValueRef::Integer(rv), ValueRef::Text(value), ValueRef::Integer(sum)] => {
            let read = whole(key, rv, value);
            if i64::from(object_checksum(&read)) == sum {
                Ok(read)
            } else {
                Err(bad(columns[0], "its checksum is wrong"))
            }
        }
        _ => Err(bad(columns[0], "a column has the wrong type")),
    })
}

/// Columns `key, rv, value, checksum, kind, prev_rv, prev`.
pub(super) fn read_entry(row: &SqlRow<'_>) -> rusqlite::Result<Result<Entry, Bad>> {
    let key = row.get_ref(0)?;
    let (ValueRef::Text(name), ValueRef::Integer(rv), ValueRef::Text(value), ValueRef::Integer(sum)) =
        (key, row.get_ref(1)?, row.get_ref(2)?, row.get_ref(3)?)
    else {
        return Ok(Err(bad(key, "a column has the wrong type")));
    };
    let kind = match row.get_ref(4)? {
        ValueRef::Text(b"created") => ChangeKind::Created,
        ValueRef::Text(b"updated") => ChangeKind::Updated,
        ValueRef::Text(b"deleted") => ChangeKind::Deleted,
        _ => return Ok(Err(bad(key, "its kind is none that we know"))),
    };
    let previous = match (row.get_ref(5)?, row.get_ref(6)?) {
        (ValueRef::Null, ValueRef::Null) => None,
        (ValueRef::Integer(rv), ValueRef::Text(value)) => {
            Some((Revision(rv.cast_unsigned()), Bytes::copy_from_slice(value)))
        }
        _ => return Ok(Err(bad(key, "a column has the wrong type"))),
    };
    let entry = Entry { kind, row: whole(name, rv, value), previous };
    Ok(if i64::from(entry_checksum(&entry)) == sum { Ok(entry) } else { Err(bad(key, "its checksum is wrong")) })
}

/// A key that is not UTF-8 any more becomes another key here, and the checksum tells.
fn whole(key: &[u8], rv: i64, value: &[u8]) -> Row {
    Row {
        key: Key::from_stored(&String::from_utf8_lossy(key)),
        revision: Revision(rv.cast_unsigned()),
        json: Bytes::copy_from_slice(value),
    }
}

fn bad(key: ValueRef<'_>, why: &str) -> Bad {
    let key = match key {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => "?".to_owned(),
    };
    Bad { key, why: why.to_owned() }
}
