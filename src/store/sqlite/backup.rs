//! A backup: the objects of one revision as a database file of its own, without history. Made and verified in memory.
//!
//! It leaves the history out because nobody may go on with it: see [`restore`](super::restore).

use std::path::Path;

use rusqlite::{Connection, MAIN_DB, params};

use super::{
    super::{EngineError, Image, Revision, state::State},
    SCHEMA, SqliteEngine, count,
    rows::{integer, object_checksum, text},
};

/// A backup, whole.
#[derive(Debug, Clone)]
pub struct Backup {
    /// Everything up to this write is in it.
    pub revision: Revision,
    pub objects: usize,
    pub bytes: Vec<u8>,
}

impl Backup {
    pub(in crate::store) fn of(image: &Image) -> Result<Self, EngineError> {
        let failed = |source| EngineError::Sqlite { doing: "make a backup", source };
        let mut connection = Connection::open_in_memory().map_err(failed)?;
        fill(&mut connection, image).map_err(failed)?;
        let bytes = connection.serialize(MAIN_DB).map_err(failed)?.to_vec();
        Ok(Self { revision: image.revision, objects: image.objects.len(), bytes })
    }
}

/// Makes an empty database hold exactly an image.
fn fill(connection: &mut Connection, image: &Image) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    for row in &image.objects {
        transaction
            .prepare_cached("INSERT INTO objects (key, rv, value, checksum) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![row.key.as_str(), integer(row.revision), text(&row.json), object_checksum(row)])?;
    }
    let sql = "UPDATE totals SET revision = ?1, compacted = ?1, objects = ?2 WHERE id = 1";
    transaction.execute(sql, params![integer(image.revision), count(image.objects.len())])?;
    transaction.commit()
}

/// Reads a backup as a restore would: marks, every row, SQLite's own structure. Answers its revision and how many objects
/// it holds. `name` is for messages.
pub fn verify(bytes: &[u8], name: &Path) -> Result<(Revision, usize), EngineError> {
    let failed = |source| EngineError::Sqlite { doing: "read the backup", source };
    let mut connection = Connection::open_in_memory().map_err(failed)?;
    connection.deserialize_read_exact(MAIN_DB, bytes, bytes.len(), true).map_err(failed)?;
    let mut engine = SqliteEngine::over(connection, name.to_owned(), None)?;
    let (state, _) = State::load(&mut engine, 1)?;
    Ok((state.revision, state.objects.len()))
}
