//! What tasks print, as workers of ours tell it: `<root>/<task>/logs/<attempt>.jsonl`, a line of text each
//! `{"ts":…,"stream":…,"text":…}`. Logs are appended as they come and not synced: a power failure may cost the last lines.

use serde_json::json;
use tokio::{fs, io::AsyncWriteExt};

use super::{FileError, ResultFiles, check_id, io_error, sanitised};
use crate::adapters::bus::session::TaskLog;

const LOGS: &str = "logs";
/// Of one attempt; what comes after is dropped, for a task that prints without end must not fill the disk.
const LARGEST_BYTES: u64 = 64 << 20;

impl ResultFiles {
    /// Where what the attempts at a task printed is, a file each.
    pub fn log_directory(&self, task: &str) -> std::path::PathBuf {
        self.directory(task).join(LOGS)
    }

    pub async fn append_log(&self, log: &TaskLog) -> Result<(), FileError> {
        check_id(&log.task)?;
        let directory = self.log_directory(&log.task);
        fs::create_dir_all(&directory).await.map_err(io_error("make the directory of a log"))?;
        // No link leads elsewhere, or nothing is written.
        if self.real_directory(&log.task).await.map(|real| real.join(LOGS)) != fs::canonicalize(&directory).await.ok() {
            return Err(FileError::Name);
        }
        let name = format!("{}.jsonl", sanitised(log.attempt.as_deref().unwrap_or("0")));
        let mut options = fs::OpenOptions::new();
        options.create(true).append(true).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
        let mut file = options.open(directory.join(name)).await.map_err(io_error("open a log"))?;
        let length = file.metadata().await.map_err(io_error("open a log"))?.len();
        let mut text = String::new();
        for line in &log.lines {
            let line = json!({"ts": line.ts, "stream": line.stream, "text": line.text}).to_string();
            if length + (text.len() + line.len()) as u64 > LARGEST_BYTES {
                break;
            }
            text.push_str(&line);
            text.push('\n');
        }
        file.write_all(text.as_bytes()).await.map_err(io_error("write a log"))?;
        file.flush().await.map_err(io_error("write a log"))
    }
}
