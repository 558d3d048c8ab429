//! Messages in the protobuf of Kubernetes: written field by field, with wrong numbers, types and lengths among them.

use super::{once_in, pick, text};

const KINDS: [(&str, &str, &str); 11] = [
    ("v1", "Namespace", "/api/v1/namespaces"),
    ("v1", "ConfigMap", "/api/v1/namespaces/default/configmaps"),
    ("v1", "Secret", "/api/v1/namespaces/default/secrets"),
    ("v1", "ServiceAccount", "/api/v1/namespaces/default/serviceaccounts"),
    ("v1", "Event", "/api/v1/namespaces/default/events"),
    ("events.k8s.io/v1", "Event", "/apis/events.k8s.io/v1/namespaces/default/events"),
    ("coordination.k8s.io/v1", "Lease", "/apis/coordination.k8s.io/v1/namespaces/default/leases"),
    ("authorization.k8s.io/v1", "SelfSubjectAccessReview", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"),
    ("authorization.k8s.io/v1", "SelfSubjectRulesReview", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"),
    ("authentication.k8s.io/v1", "SelfSubjectReview", "/apis/authentication.k8s.io/v1/selfsubjectreviews"),
    ("gaia.dev/v1alpha1", "Workload", "/apis/gaia.dev/v1alpha1/namespaces/default/workloads"),
];

pub fn protobuf_body(rng: &mut fastrand::Rng) -> Vec<u8> {
    let (api_version, kind, path) = pick(rng, &KINDS);
    let named = path.contains("default") || path.ends_with("namespaces");
    let (method, path, kind) = match rng.u8(..6) {
        0 if named => ("PUT", format!("{path}/one"), kind),
        1 if named => ("DELETE", format!("{path}/one?dryRun=All"), "DeleteOptions"),
        _ => ("POST", path.to_owned(), kind),
    };
    let mut metadata = field(1, pick(rng, &["one", "", "two", "n1", "n2", "ÿ"]).as_bytes());
    for _ in 0..rng.usize(..4) {
        metadata.extend(any_field(rng, 3));
    }
    let mut raw = field(1, &metadata);
    for _ in 0..rng.usize(..6) {
        raw.extend(any_field(rng, 3));
    }
    let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
    let mut body = [b"k8s\0".to_vec(), field(1, &meta), field(2, &raw), field(3, b""), field(4, b"")].concat();
    if once_in(rng, 3) {
        text::damage(rng, &mut body);
    }
    [format!("{method} {path}\n\n").into_bytes(), body].concat()
}

fn any_field(rng: &mut fastrand::Rng, depth: u8) -> Vec<u8> {
    let number = rng.u64(1..20);
    match rng.u8(..8) {
        0 => [varint(number << 3), varint(pick(rng, &[0, 1, 300, u64::MAX, 1 << 63, 1 << 31]))].concat(),
        1 => [varint(number << 3 | 1), vec![0xab; 8]].concat(),
        2 => [varint(number << 3 | 5), vec![0xcd; 4]].concat(),
        3 => [varint(number << 3 | rng.u64(3..8)), vec![1, 2]].concat(),
        4 if depth > 0 => {
            let inner: Vec<u8> = (0..rng.usize(..4)).flat_map(|_| any_field(rng, depth - 1)).collect();
            field(number, &inner)
        }
        // A pair of a map, or a time.
        5 => field(number, &[field(1, text::odd(rng).as_bytes()), field(2, text::odd(rng).as_bytes())].concat()),
        6 => field(
            number,
            &[varint(1 << 3), varint(rng.u64(..)), varint(2 << 3), varint(rng.u64(..2_000_000_000))].concat(),
        ),
        _ => field(number, text::odd(rng).as_bytes()),
    }
}

fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).expect("seven bits") | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).expect("seven bits"));
    out
}
