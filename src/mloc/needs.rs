//! What a step needs of a worker, whether a worker has it, and which of several is taken: contract sections 4.3 and 4.4.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Map, Value, json};

use super::amounts::{self, MemoryReading};
use crate::api::{task::MlocSpec, worker::WorkerHardware};

/// What a worker must have.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Needs {
    /// `spec.taskType`.
    pub task_type: String,
    /// `spec.data.type`. None: the document does not say.
    pub data_type: Option<String>,
    pub millicores: u64,
    pub memory_bytes: Option<u64>,
    pub gpu: Option<GpuNeeds>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GpuNeeds {
    pub count: u32,
    /// Part of the product's name, in lower case. None: any.
    pub product: Option<String>,
    /// Of each.
    pub memory_bytes: Option<u64>,
}

/// What a worker has to offer.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'w> {
    pub hardware: &'w WorkerHardware,
    /// What it can run. None: a worker of MLOC's, which does not say, and is taken to run all.
    pub executors: Option<&'w Executors>,
}

/// The types of tasks that a worker runs, and of which data each. None: of any.
pub type Executors = BTreeMap<String, Option<BTreeSet<String>>>;

/// In what a worker announces as its `env`.
const EXECUTORS: &str = "executors";
/// Beside them: for those executors that cannot do with any, the types of data that they take.
const DATA_TYPES: &str = "data_types";

/// What a worker of ours announces, which others pass over: for each type of tasks the data that it takes.
pub fn announce(executors: &Executors) -> Map<String, Value> {
    let of = |(name, data): (&String, &Option<BTreeSet<String>>)| Some((name.clone(), json!(data.as_ref()?)));
    let data_types: Map<String, Value> = executors.iter().filter_map(of).collect();
    let names: Vec<&String> = executors.keys().collect();
    Map::from_iter([(EXECUTORS.to_owned(), json!(names)), (DATA_TYPES.to_owned(), Value::Object(data_types))])
}

/// From the `env` of a worker. None: it does not say what it runs.
pub fn announced(env: &Value) -> Option<Executors> {
    let texts = |list: &Value| -> Option<BTreeSet<String>> {
        Some(list.as_array()?.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    };
    let names = texts(&env[EXECUTORS])?;
    Some(names.into_iter().map(|name| (name.clone(), texts(&env[DATA_TYPES][&name]))).collect())
}

impl Needs {
    /// Of one step.
    pub fn of(spec: &MlocSpec, reading: MemoryReading) -> Self {
        let hardware = &spec.resources.hardware;
        let amount = |given: &Option<IntOrString>| match given {
            Some(IntOrString::Int(number)) => Value::from(*number),
            Some(IntOrString::String(text)) => Value::from(text.as_str()),
            None => Value::Null,
        };
        let cpu = amount(&hardware.cpu);
        let memory = amount(&hardware.memory);
        let counts = reading == MemoryReading::Exact || !amounts::is_ignored_by_mloc(&memory);
        let gpu = hardware.gpu.as_ref().map(|gpu| GpuNeeds {
            count: gpu.count,
            product: Some(gpu.type_.to_lowercase()).filter(|product| product != "any" && !product.is_empty()),
            memory_bytes: gpu.rest.get("memory").and_then(amounts::bytes),
        });
        Self {
            task_type: spec.task_type.clone(),
            data_type: spec.rest.get("data").and_then(|data| data["type"].as_str()).map(str::to_owned),
            millicores: amounts::millicores(&cpu).unwrap_or(0),
            memory_bytes: amounts::bytes(&memory).filter(|_| counts),
            // `count: 0` of any kind asks for nothing; of a kind it asks for one, as in MLOC.
            gpu: gpu.filter(|gpu| gpu.count > 0 || gpu.product.is_some()),
        }
    }

    /// Why a worker cannot do it. None: it can. What a worker does not say of its memory is taken to be
    /// enough; a worker that does not say how many cores it has has none.
    pub fn missing(&self, offer: Offer<'_>) -> Option<Lack> {
        let hardware = offer.hardware;
        if let Some(all) = offer.executors {
            let Some(takes) = all.get(&self.task_type) else { return Some(Lack::Executors) };
            if takes.as_ref().zip(self.data_type.as_ref()).is_some_and(|(takes, data)| !takes.contains(data)) {
                return Some(Lack::Data);
            }
        }
        if self.millicores > u64::from(hardware.cpu_cores.unwrap_or(0)) * 1000 {
            return Some(Lack::Cores);
        }
        if self.memory_bytes.zip(hardware.memory_bytes).is_some_and(|(needed, there)| needed > there) {
            return Some(Lack::Memory);
        }
        let gpu = self.gpu.as_ref()?;
        let good = hardware.gpus.iter().filter(|card| {
            let product = gpu.product.as_ref().is_none_or(|product| card.name.to_lowercase().contains(product));
            let memory = gpu.memory_bytes.zip(card.memory_bytes).is_none_or(|(needed, there)| needed <= there);
            product && memory
        });
        (good.count() < gpu.count.max(1) as usize).then_some(Lack::Gpus)
    }
}

/// What a worker lacks, as it is told of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
pub enum Lack {
    #[strum(serialize = "do not run its taskType")]
    Executors,
    #[strum(serialize = "run its taskType with data of other types")]
    Data,
    #[strum(serialize = "have too few cores")]
    Cores,
    #[strum(serialize = "have too little memory")]
    Memory,
    #[strum(serialize = "have too few gpus")]
    Gpus,
}

/// When workers count as scarce, and what one is worth: `CPU_ONLY_WEIGHT`, `GPU_WEIGHT`, `LOW_AVAIL_RATIO`,
/// `HIGH_AVAIL_RATIO`, `MAX_AUTO_SHARDS`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weights {
    pub cpu_only: f64,
    pub gpu: f64,
    /// Up to here the first that fits is taken.
    pub low: f64,
    /// From here on a step may be divided.
    pub high: f64,
    pub most_shards: u32,
}

impl Default for Weights {
    fn default() -> Self {
        Self { cpu_only: 0.6, gpu: 1.0, low: 0.6, high: 2.0, most_shards: 8 }
    }
}

impl Weights {
    /// Idle workers that fit, for each step that wants one.
    pub fn ratio<'h>(&self, fitting: impl Iterator<Item = &'h WorkerHardware>, demand: usize) -> f64 {
        let weight = |hardware: &WorkerHardware| if hardware.gpus.is_empty() { self.cpu_only } else { self.gpu };
        fitting.map(weight).sum::<f64>() / demand.max(1) as f64
    }

    /// The places of those that fit, the one to take first: in their own order when they are scarce, else the best equipped
    /// first (with a GPU, then by its memory, by memory, by cores).
    pub fn order(&self, fitting: &[&WorkerHardware], demand: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..fitting.len()).collect();
        if self.ratio(fitting.iter().copied(), demand) > self.low {
            let worth = |hardware: &WorkerHardware| {
                let vram: u64 = hardware.gpus.iter().filter_map(|gpu| gpu.memory_bytes).sum();
                (!hardware.gpus.is_empty(), vram, hardware.memory_bytes, hardware.cpu_cores)
            };
            order.sort_by_key(|n| std::cmp::Reverse(worth(fitting[*n])));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::api::worker::WorkerGpu;

    const GIB: u64 = 1 << 30;

    fn worker(cores: u32, gib: u64, gpus: &[&str]) -> WorkerHardware {
        let card = |(index, name): (usize, &&str)| WorkerGpu {
            index: index as u32,
            name: (*name).to_owned(),
            uuid: None,
            memory_bytes: Some(80 * GIB),
        };
        let gpus = gpus.iter().enumerate().map(card).collect();
        WorkerHardware { cpu_cores: Some(cores), memory_bytes: Some(gib * GIB), gpus, ..WorkerHardware::default() }
    }

    fn mlocs(hardware: &WorkerHardware) -> Offer<'_> {
        Offer { hardware, executors: None }
    }

    #[test]
    fn who_says_what_it_runs_gets_nothing_else() {
        let there = worker(4, 24, &[]);
        for (executors, expected) in
            [(vec!["echo", "http"], None), (vec!["http"], Some(Lack::Executors)), (vec![], Some(Lack::Executors))]
        {
            let executors = executors.into_iter().map(|name| (name.to_owned(), None)).collect();
            let offer = Offer { hardware: &there, executors: Some(&executors) };
            assert_eq!(needs(json!({"cpu": 1}), MemoryReading::Exact).missing(offer), expected);
        }
    }

    #[rstest]
    #[case("inference", json!({"type": "dataset"}), Some(Lack::Data))]
    #[case("inference", json!({"type": "graph_template"}), None)]
    #[case("inference", json!({"items": []}), None)]
    #[case("inference", json!(null), None)]
    #[case("command", json!({"type": "dataset"}), None)]
    #[case("echo", json!({"type": "list"}), Some(Lack::Executors))]
    fn who_says_what_data_it_takes_gets_no_other(
        #[case] task_type: &str,
        #[case] data: Value,
        #[case] expected: Option<Lack>,
    ) {
        let env =
            json!({"executors": ["inference", "command"], "data_types": {"inference": ["graph_template", "list"]}});
        let executors = announced(&env).expect("it says so");
        assert_eq!(
            Value::Object(announce(&executors)),
            json!({"executors": ["command", "inference"], "data_types": env["data_types"]})
        );
        let spec = json!({"taskType": task_type, "resources": {"hardware": {}}, "data": data});
        let needs = Needs::of(&serde_json::from_value(spec).expect("a spec"), MemoryReading::Exact);
        let there = worker(4, 24, &[]);
        assert_eq!(needs.missing(Offer { hardware: &there, executors: Some(&executors) }), expected);
        assert_eq!(needs.missing(mlocs(&there)), None, "who does not say is taken to run all");
    }

    #[test]
    fn who_says_nothing_of_data_takes_any() {
        assert_eq!(announced(&json!({})), None);
        assert_eq!(announced(&json!({"executors": "echo"})), None);
        let old = announced(&json!({"executors": ["echo", 1], "data_types": {"echo": "list"}})).expect("it says so");
        assert_eq!(old, Executors::from([("echo".to_owned(), None)]));
    }

    fn needs(hardware: Value, reading: MemoryReading) -> Needs {
        let spec = json!({"taskType": "echo", "resources": {"hardware": hardware}});
        Needs::of(&serde_json::from_value(spec).expect("a spec"), reading)
    }

    #[rstest]
    #[case(json!({"cpu": "500m", "memory": "1Gi"}), None)]
    #[case(json!({"cpu": 4}), None)]
    #[case(json!({"cpu": "4.5"}), Some(Lack::Cores))]
    #[case(json!({"memory": "23Gi"}), None)]
    #[case(json!({"memory": "25Gi"}), Some(Lack::Memory))]
    #[case(json!({"gpu": {"count": 1, "type": "any"}}), None)]
    #[case(json!({"gpu": {"count": 2, "type": "H200"}}), None)]
    #[case(json!({"gpu": {"count": 3, "type": "any"}}), Some(Lack::Gpus))]
    #[case(json!({"gpu": {"count": 1, "type": "a100"}}), Some(Lack::Gpus))]
    #[case(json!({"gpu": {"count": 0, "type": "a100"}}), Some(Lack::Gpus))]
    #[case(json!({"gpu": {"count": 0, "type": "any"}}), None)]
    #[case(json!({"gpu": {"count": 1, "type": "any", "memory": "80Gi"}}), None)]
    #[case(json!({"gpu": {"count": 1, "type": "any", "memory": "141GB"}}), Some(Lack::Gpus))]
    fn a_worker_fits_or_lacks_something(#[case] hardware: Value, #[case] expected: Option<Lack>) {
        let there = worker(4, 24, &["NVIDIA H200", "NVIDIA H200"]);
        assert_eq!(needs(hardware, MemoryReading::Exact).missing(mlocs(&there)), expected);
    }

    #[test]
    fn who_says_nothing_of_its_memory_has_enough_and_of_its_cores_none() {
        let silent = WorkerHardware::default();
        assert_eq!(needs(json!({"memory": "64Gi"}), MemoryReading::Exact).missing(mlocs(&silent)), None);
        assert_eq!(needs(json!({"cpu": 1}), MemoryReading::Exact).missing(mlocs(&silent)), Some(Lack::Cores));
    }

    #[test]
    fn the_lenient_reading_passes_over_what_mloc_did() {
        let there = worker(8, 24, &[]);
        assert_eq!(needs(json!({"memory": "64Gi"}), MemoryReading::Lenient).missing(mlocs(&there)), None);
        assert_eq!(needs(json!({"memory": "64GB"}), MemoryReading::Lenient).missing(mlocs(&there)), Some(Lack::Memory));
    }

    #[test]
    fn the_best_is_taken_when_there_are_enough_and_the_first_when_not() {
        let (small, large, card) = (worker(2, 8, &[]), worker(16, 64, &[]), worker(4, 16, &["NVIDIA H200"]));
        let fitting = [&small, &large, &card];
        assert_eq!(Weights::default().order(&fitting, 1), [2, 1, 0]);
        assert_eq!(Weights::default().order(&fitting, 4), [0, 1, 2]);
    }
}
