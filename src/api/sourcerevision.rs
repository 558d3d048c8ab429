//! `SourceRevision`: what the files of a Source came to at one time, so that it can be had back.
//!
//! One object a revision, and not one list as a WorkloadHistory is: it holds every object of a whole host, so rewriting ten of
//! them at each change would fill the store's log. It is never changed after it was made. Not in the Source's status: manifests
//! may hold secrets, which a status never does.

use std::io::Read;

use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a Source had applied. Written by gaia, `<source>-<number>`, and deleted with its Source. `gaia source history` reads it.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gaia.dev",
    version = "v1alpha1",
    kind = "SourceRevision",
    plural = "sourcerevisions",
    shortname = "srcrev",
    category = "gaia",
    derive = "PartialEq",
    printcolumn(name = "Source", type_ = "string", json_path = ".spec.source"),
    printcolumn(name = "Revision", type_ = "integer", json_path = ".spec.revision"),
    printcolumn(name = "Objects", type_ = "integer", json_path = ".spec.objects"),
    printcolumn(name = "Commit", type_ = "string", json_path = ".spec.cause.commit"),
    printcolumn(name = "Digest", type_ = "string", json_path = ".spec.digest", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".spec.since")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message("a revision is what was: it is never changed"))]
pub struct SourceRevisionSpec {
    /// Whose it is.
    #[schemars(length(min = 1))]
    pub source: String,
    /// Counts up within a Source. A state that comes back gets the next number, and its old revision goes.
    #[schemars(range(min = 1))]
    pub revision: i64,
    /// When it had been applied, all of it, for the first time.
    pub since: Time,
    /// As `status.appliedRevision` of the Source: a hash of what is wished.
    #[schemars(length(min = 1, max = 64))]
    pub digest: String,
    #[serde(default)]
    pub cause: SourceRevisionCause,
    /// How many objects it holds.
    pub objects: u32,
    /// The objects as they were applied: base64 of gzip of a JSON array of `{file, line, object}`. What Compose files said
    /// stands in them.
    pub manifests: String,
}

/// Where it came from, and what it changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceRevisionCause {
    /// Of a git repository: 40 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The first line of the commit's message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Against the revision before: `changed Workload default/web (stack/web.yaml:1)`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
}

/// One object of a revision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Relative to the directory of its Source.
    pub file: String,
    /// Where its document began: 1-based.
    pub line: u32,
    pub object: Value,
}

/// What a text of manifests may come to: as much as the files of a Source.
const MOST_UNPACKED_BYTES: u64 = 64 << 20;

/// `spec.manifests` of these objects. Equal objects give an equal text.
pub fn pack(manifests: &[Manifest]) -> String {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    // Neither can fail: it is plain data, written to memory.
    serde_json::to_writer(&mut packed, manifests).expect("manifests are plain data");
    STANDARD.encode(packed.finish().expect("memory takes everything"))
}

/// The objects of a `spec.manifests`; the error says what is wrong with it.
pub fn unpack(manifests: &str) -> Result<Vec<Manifest>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("spec.manifests cannot be read: {error}");
    let packed = STANDARD.decode(manifests).map_err(|error| wrong(&error))?;
    let mut json = Vec::new();
    let mut bounded = GzDecoder::new(packed.as_slice()).take(MOST_UNPACKED_BYTES + 1);
    bounded.read_to_end(&mut json).map_err(|error| wrong(&error))?;
    if json.len() as u64 > MOST_UNPACKED_BYTES {
        return Err(wrong(&format!("it holds more than {MOST_UNPACKED_BYTES} bytes")));
    }
    serde_json::from_slice(&json).map_err(|error| wrong(&error))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_packed_comes_out_again() {
        for count in [0, 1, 500] {
            let one = |n: u32| Manifest {
                file: format!("{n}.yaml"),
                line: n + 1,
                object: json!({"kind": "Workload", "metadata": {"name": n.to_string()}}),
            };
            let all: Vec<Manifest> = (0..count).map(one).collect();
            let text = pack(&all);
            assert_eq!(unpack(&text).expect("it was packed"), all);
            assert_eq!(pack(&all), text, "equal objects, equal text");
            assert!(text.len() < 100 + all.len() * 40, "{} bytes for {count}", text.len());
        }
    }

    #[test]
    fn what_was_tampered_with_is_refused() {
        let zeros = {
            let mut packed = GzEncoder::new(Vec::new(), Compression::best());
            std::io::copy(&mut std::io::repeat(b' ').take(MOST_UNPACKED_BYTES + 1), &mut packed).expect("memory");
            STANDARD.encode(packed.finish().expect("memory"))
        };
        let whole = pack(&[]);
        for (text, why) in [
            ("", "unexpected end of file"),
            ("*", "Invalid symbol"),
            (&whole[..12], "spec.manifests cannot be read"),
            (&*STANDARD.encode("no gzip"), "spec.manifests cannot be read"),
            (&*zeros, "it holds more than 67108864 bytes"),
        ] {
            let said = unpack(text).expect_err("it is not whole");
            assert!(said.contains(why), "{said}");
        }
    }
}
