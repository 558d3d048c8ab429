//! `nvidia-smi`, for hosts whose NVML cannot be loaded. It tells no graphics processes, no MIG instances and no Xids, and a
//! question costs a process; but it is there where the driver is.

use std::{ffi::OsString, io, path::Path, process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

use super::{GpuDevice, GpuError, GpuProcess, procfs};

const CARDS: &str = "--query-gpu=index,uuid,memory.total,memory.used,utilization.gpu,temperature.gpu,power.draw,name";
const PROCESSES: &str = "--query-compute-apps=gpu_uuid,pid,used_memory,process_name";
const FORMAT: &str = "--format=csv,noheader,nounits";
/// How much of a complaint is repeated.
const COMPLAINT: usize = 300;

/// Every card with its processes.
pub async fn inventory(program: &OsString, proc_root: &Path, deadline: Duration) -> Result<Vec<GpuDevice>, GpuError> {
    let (cards, processes) = tokio::join!(ask(program, CARDS, deadline), ask(program, PROCESSES, deadline));
    let mut devices = parse_cards(&cards?);
    // Cards without their processes are better than nothing, as long as it is said that they are not known.
    let processes = processes.ok().map(|text| parse_processes(&text));
    for device in &mut devices {
        device.processes = processes.as_ref().map(|all| of_card(all, &device.uuid, proc_root));
    }
    Ok(devices)
}

async fn ask(program: &OsString, query: &str, deadline: Duration) -> Result<String, GpuError> {
    let mut command = Command::new(program);
    command.args([query, FORMAT]).stdin(Stdio::null()).kill_on_drop(true);
    let output = match timeout(deadline, command.output()).await {
        Err(_) => return Err(GpuError::Unreachable(format!("no answer from nvidia-smi within {deadline:?}"))),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            return Err(GpuError::NoDriver("nvidia-smi is not installed".to_owned()));
        }
        Ok(Err(error)) => return Err(GpuError::Unreachable(format!("nvidia-smi cannot be run: {error}"))),
        Ok(Ok(output)) => output,
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    // It complains on its standard output.
    let said = [output.stdout, output.stderr].concat();
    let said: String = String::from_utf8_lossy(&said).trim().chars().take(COMPLAINT).collect();
    Err(GpuError::NoDriver(format!("nvidia-smi failed ({}): {said}", output.status)))
}

/// The answer to [`CARDS`]. A line without index or uuid (a lost card) tells of no card.
fn parse_cards(text: &str) -> Vec<GpuDevice> {
    text.lines().filter_map(parse_card).collect()
}

fn parse_card(line: &str) -> Option<GpuDevice> {
    // The name is last: it alone might hold a comma.
    let mut fields = line.splitn(8, ',').map(known);
    let mut next = || fields.next().flatten();
    let (index, uuid, total, used) = (next(), next(), next(), next());
    let (load, celsius, watts, name) = (next(), next(), next(), next());
    Some(GpuDevice {
        index: index?.parse().ok()?,
        uuid: uuid.filter(|uuid| uuid.starts_with("GPU-"))?.to_owned(),
        mig: None,
        name: name.unwrap_or("unknown").to_owned(),
        // Without a total there is no reading.
        memory_used_mib: total.and(used).and_then(number),
        memory_total_mib: total.and_then(number).unwrap_or_default(),
        utilization_percent: load.and_then(number),
        temperature_celsius: celsius.and_then(number),
        power_watts: watts.and_then(number),
        last_xid: None,
        processes: None,
    })
}

/// The answer to [`PROCESSES`], each with the uuid of its card.
fn parse_processes(text: &str) -> Vec<(String, GpuProcess)> {
    text.lines().filter_map(parse_process).collect()
}

fn parse_process(line: &str) -> Option<(String, GpuProcess)> {
    let mut fields = line.splitn(4, ',').map(known);
    let mut next = || fields.next().flatten();
    let (uuid, pid, used, name) = (next()?, next()?.parse().ok()?, next(), next());
    let name = name.and_then(|path| path.rsplit('/').next()).map(str::to_owned);
    Some((
        uuid.to_owned(),
        GpuProcess { pid, name, container: None, other_engine: false, used_mib: used.and_then(number) },
    ))
}

/// By pid, each once. What `/proc` says wins over the path that nvidia-smi prints.
fn of_card(all: &[(String, GpuProcess)], uuid: &str, proc_root: &Path) -> Vec<GpuProcess> {
    let mut processes: Vec<_> = all
        .iter()
        .filter(|(card, _)| card == uuid)
        .map(|(_, told)| {
            let seen = procfs::process(proc_root, told.pid, told.used_mib);
            GpuProcess { name: seen.name.clone().or_else(|| told.name.clone()), ..seen }
        })
        .collect();
    processes.sort_by_key(|process| process.pid);
    processes.dedup_by_key(|process| process.pid);
    processes
}

/// `[N/A]`, `[Not Supported]`, `[Unknown Error]`, `[GPU is lost]` and the like are no values.
fn known(field: &str) -> Option<&str> {
    let field = field.trim();
    (!field.is_empty() && !field.starts_with('[') && field != "N/A").then_some(field)
}

fn number<T: std::str::FromStr>(field: &str) -> Option<T> {
    field.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn cards_are_read_and_what_is_not_told_is_not_zero() {
        let text = "0, GPU-aa, 24564, 1024, 37, 61, 212.50, NVIDIA GeForce RTX 4090\n\
                    1, GPU-bb, 24564, [N/A], [Not Supported], [Unknown Error], [N/A], NVIDIA, with a comma\n\
                    2, GPU-cc, [N/A], [N/A], 0, 40, N/A, NVIDIA GB10\n\
                    3, [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost]\n\
                    \n\
                    Unable to determine the device handle for GPU 0000:01:00.0: GPU is lost.\n";
        let cards = parse_cards(text);
        let [full, silent, unified] = cards.as_slice() else { panic!("three cards: {cards:?}") };
        assert_eq!((full.index, full.uuid.as_str(), full.name.as_str()), (0, "GPU-aa", "NVIDIA GeForce RTX 4090"));
        assert_eq!((full.memory_total_mib, full.memory_used_mib), (24_564, Some(1_024)));
        assert_eq!(
            (full.utilization_percent, full.temperature_celsius, full.power_watts),
            (Some(37), Some(61), Some(212.5))
        );
        assert_eq!(silent.name, "NVIDIA, with a comma");
        assert_eq!((silent.memory_used_mib, silent.utilization_percent), (None, None));
        assert_eq!((silent.temperature_celsius, silent.power_watts), (None, None));
        assert_eq!((unified.memory_used_mib, unified.utilization_percent), (None, Some(0)));
    }

    #[test]
    fn processes_are_read() {
        let text = "GPU-aa, 41, 6000, /usr/bin/python3\nGPU-aa, 42, [N/A], [Not Found]\n\nNo running processes found\n";
        let told = parse_processes(text);
        let [(card, python), (_, silent)] = told.as_slice() else { panic!("two processes: {told:?}") };
        assert_eq!((card.as_str(), python.pid, python.used_mib), ("GPU-aa", 41, Some(6_000)));
        assert_eq!(python.name.as_deref(), Some("python3"));
        assert_eq!((silent.pid, silent.used_mib, silent.name.as_deref()), (42, None, None));
    }

    /// A program in place of nvidia-smi.
    async fn answers(script: &str) -> Result<Vec<GpuDevice>, GpuError> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let program = dir.path().join("nvidia-smi");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("made executable");
        inventory(&program.into(), dir.path(), Duration::from_secs(20)).await
    }

    #[tokio::test]
    async fn the_program_is_asked_for_cards_and_processes() {
        let cards = answers(
            "case $1 in *compute-apps*) echo 'GPU-aa, 41, 6000, llm';; *) echo '0, GPU-aa, 24564, 6100, 5, 50, 99.0, RTX';; esac",
        );
        let cards = cards.await.expect("it answers");
        assert_eq!((cards.len(), cards[0].memory_used_mib), (1, Some(6_100)));
        let processes = cards[0].processes.as_deref().expect("told");
        assert_eq!((processes[0].pid, processes[0].name.as_deref()), (41, Some("llm")));
    }

    #[tokio::test]
    async fn processes_that_cannot_be_asked_for_are_not_none_at_all() {
        let cards =
            answers("case $1 in *compute-apps*) exit 1;; *) echo '0, GPU-aa, 24564, 6100, 5, 50, 99.0, RTX';; esac");
        assert_eq!(cards.await.expect("it answers")[0].processes, None);
    }

    #[tokio::test]
    async fn a_program_that_is_absent_or_fails_means_no_driver() {
        let failed =
            answers("echo 'NVIDIA-SMI has failed because it could not communicate with the driver'; exit 9").await;
        assert!(matches!(&failed, Err(GpuError::NoDriver(why)) if why.contains("communicate")), "{failed:?}");
        let absent = inventory(&"/nowhere/nvidia-smi".into(), Path::new("/proc"), Duration::from_secs(20)).await;
        assert_eq!(absent, Err(GpuError::NoDriver("nvidia-smi is not installed".to_owned())));
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_given_up() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let hung = dir.path().join("nvidia-smi");
        fs::write(&hung, "#!/bin/sh\nexec sleep 600\n").expect("written");
        fs::set_permissions(&hung, fs::Permissions::from_mode(0o755)).expect("made executable");
        let said = inventory(&hung.into(), dir.path(), Duration::from_millis(100)).await;
        assert!(matches!(said, Err(GpuError::Unreachable(_))), "{said:?}");
    }
}
