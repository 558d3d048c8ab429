//! GAIA's stack as `desired/gaia` states it, with a peer in the place of every image.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Value, json};

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/desired/gaia");
/// Two of them are more than the card has.
pub const PRIME_MIB: u64 = 10_400;
pub const STUDY_MIB: u64 = 12_000;

pub struct Stack {
    pub gpu: Value,
    workloads: BTreeMap<String, Value>,
}

impl Stack {
    /// Prime, core and study, and the mcp that core waits for. Probes look every second.
    pub fn of_peers(image: &str, card: &Path) -> Self {
        let read = |name: &str| {
            let text = fs::read_to_string(format!("{SHIPPED}/{name}.yaml")).expect("the example is there");
            serde_saphyr::from_str::<Value>(&text).expect("the example is YAML")
        };
        let names = ["gaia-prime", "gaia-core", "gaia-study", "gaia-mcp"];
        let workload = |name: &str| {
            let mut workload = read(&format!("stack/{name}"));
            for variant in ["live", "candidate"] {
                let container = &mut workload["spec"][variant]["container"];
                *container = peer(name, variant, container, image, card);
            }
            for (_, probe) in workload["spec"]["probes"].as_object_mut().expect("it is probed") {
                probe["periodSeconds"] = json!(1);
            }
            (name.to_owned(), workload)
        };
        Self { gpu: read("gpu"), workloads: names.map(workload).into() }
    }

    /// Nobody owns it, and nobody but outsiders will ask for it.
    pub fn only_the_card(&mut self) {
        self.workloads.clear();
        self.gpu["spec"].as_object_mut().expect("a spec").remove("owner");
    }

    pub fn spec(&mut self, name: &str) -> &mut Value {
        &mut self.workloads.get_mut(name).expect("it is in the stack")["spec"]
    }

    /// As files of a directory of desired state.
    pub fn files(&self) -> Vec<(String, String)> {
        let all = self.workloads.iter().map(|(name, workload)| (name.as_str(), workload));
        let all = all.chain([("gpu0", &self.gpu)]);
        all.map(|(name, object)| (format!("{name}.json"), object.to_string())).collect()
    }
}

fn peer(name: &str, variant: &str, shipped: &Value, image: &str, card: &Path) -> Value {
    let port = &shipped["ports"][0]["containerPort"];
    let who = format!("{name}-{variant}");
    let mut args = vec![json!("serve"), json!("--port"), json!(port.to_string())];
    args.extend(["--card", "/card", "--name", &who].map(|word| json!(word)));
    // Prime has its model before it answers; study only while it trains.
    match name {
        "gaia-prime" => args.extend([json!("--eager"), json!("--mib"), json!(PRIME_MIB.to_string())]),
        "gaia-study" => args.extend([json!("--mib"), json!(STUDY_MIB.to_string())]),
        _ => {}
    }
    let mut container = json!({"image": image, "args": args, "mounts": [{"source": card, "target": "/card"}]});
    if !shipped["gpus"].is_null() {
        container["gpus"] = shipped["gpus"].clone();
    }
    container
}
