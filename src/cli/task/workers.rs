//! Who runs tasks, and what each is at.

use std::io::Write;

use jiff::Timestamp;
use kube::ResourceExt;

use crate::{
    api::{
        condition::{self, READY},
        worker::{Worker, WorkerHardware},
    },
    cli::{
        Outcome,
        print::{self, Format},
        session::{ServerArgs, Session},
        table,
    },
};

pub async fn list(format: Format, server: &ServerArgs, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(server)?;
    let mut workers: Vec<Worker> = session.list(Some(super::NAMESPACE), None).await?;
    workers.sort_by_key(Worker::id);
    print::result(out, format, &print::list(&workers), || text(&workers, Timestamp::now()))?;
    Ok(0)
}

fn text(workers: &[Worker], now: Timestamp) -> String {
    let heads = ["ID", "STATE", "TASK", "HAS", "HEARTBEAT", "AGE"].map(str::to_owned);
    let rows = workers.iter().map(|worker| row(worker, now).to_vec());
    table::align([heads.to_vec()].into_iter().chain(rows).collect())
}

fn row(worker: &Worker, now: Timestamp) -> [String; 6] {
    let status = worker.status.clone().unwrap_or_default();
    let ready = condition::is_true(&status.conditions, READY);
    let state: &str = status.state.into();
    let state = match (ready, worker.spec.unschedulable) {
        (false, _) => "lost".to_owned(),
        (true, true) => format!("{},cordoned", state.to_lowercase()),
        (true, false) => state.to_lowercase(),
    };
    let since = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), |at| print::age(at, now));
    [
        worker.id(),
        state,
        status.current_task.unwrap_or_else(|| "-".to_owned()),
        status.hardware.as_ref().map_or_else(|| "-".to_owned(), has),
        since(status.last_heartbeat_at.map(|at| at.0)),
        since(worker.creation_timestamp().map(|at| at.0)),
    ]
}

/// `8 cores, 64Gi, 2 NVIDIA H200`
fn has(hardware: &WorkerHardware) -> String {
    let cores = hardware.cpu_cores.map(|cores| format!("{cores} cores"));
    let memory = hardware.memory_bytes.map(|bytes| format!("{}Gi", bytes >> 30));
    let cards = hardware.gpus.first().map(|card| format!("{} {}", hardware.gpus.len(), card.name));
    [cores, memory, cards].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::api::worker::{WorkerGpu, WorkerSpec, WorkerState, WorkerStatus};

    #[test]
    fn a_worker_is_a_line() {
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).expect("a time");
        let mut worker = Worker::new("w1", WorkerSpec { unschedulable: true, ..WorkerSpec::default() });
        let card = WorkerGpu { name: "NVIDIA H200".to_owned(), ..WorkerGpu::default() };
        let hardware = WorkerHardware {
            cpu_cores: Some(8),
            memory_bytes: Some(64 << 30),
            gpus: vec![card.clone(), card],
            ..WorkerHardware::default()
        };
        let mut status = WorkerStatus {
            state: WorkerState::Running,
            current_task: Some("t1".to_owned()),
            hardware: Some(hardware),
            last_heartbeat_at: Some(Time(at(0))),
            ..WorkerStatus::default()
        };
        worker.status = Some(status.clone());
        let row_of = |worker: &Worker| row(worker, at(3)).join("|");
        assert_eq!(row_of(&worker), "w1|lost|t1|8 cores, 64Gi, 2 NVIDIA H200|3s|-");
        let ready = condition::ConditionStatus::True;
        condition::set(&mut status.conditions, READY, ready, "HeartbeatSeen", "", None, &Time(at(0)));
        worker.status = Some(status);
        assert_eq!(row_of(&worker), "w1|running,cordoned|t1|8 cores, 64Gi, 2 NVIDIA H200|3s|-");
    }
}
