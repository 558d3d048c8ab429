//! What the built-in kinds look like on the wire: the numbers of k8s.io/api's `generated.proto` files.

use super::{
    Fields,
    Wire::{Bool, BytesMap, Count, Int, Many, MicroTime, One, Raw, Text, TextMap, Texts, Time},
};

/// By group and kind: no kind here has versions that differ. Options of a deletion come in the group of what is deleted.
pub fn of(api_version: &str, kind: &str) -> Option<Fields> {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    Some(match (group, kind) {
        ("", "Namespace") => NAMESPACE,
        ("", "ConfigMap") => CONFIG_MAP,
        ("", "Secret") => SECRET,
        ("", "ServiceAccount") => SERVICE_ACCOUNT,
        ("", "Event") => EVENT,
        ("events.k8s.io", "Event") => NEW_EVENT,
        ("coordination.k8s.io", "Lease") => LEASE,
        ("authorization.k8s.io", "SelfSubjectAccessReview") => ACCESS_REVIEW,
        ("authorization.k8s.io", "SelfSubjectRulesReview") => RULES_REVIEW,
        ("authentication.k8s.io", "SelfSubjectReview") => SUBJECT_REVIEW,
        (_, "DeleteOptions") => DELETE_OPTIONS,
        _ => return None,
    })
}

const OBJECT_META: Fields = &[
    (1, "name", Text),
    (2, "generateName", Text),
    (3, "namespace", Text),
    (5, "uid", Text),
    (6, "resourceVersion", Text),
    (7, "generation", Int),
    (8, "creationTimestamp", Time),
    (9, "deletionTimestamp", Time),
    (10, "deletionGracePeriodSeconds", Count),
    (11, "labels", TextMap),
    (12, "annotations", TextMap),
    (13, "ownerReferences", Many(OWNER_REFERENCE)),
    (14, "finalizers", Texts),
    (17, "managedFields", Many(MANAGED_FIELDS)),
];
const OWNER_REFERENCE: Fields = &[
    (1, "kind", Text),
    (3, "name", Text),
    (4, "uid", Text),
    (5, "apiVersion", Text),
    (6, "controller", Bool),
    (7, "blockOwnerDeletion", Bool),
];
const MANAGED_FIELDS: Fields = &[
    (1, "manager", Text),
    (2, "operation", Text),
    (3, "apiVersion", Text),
    (4, "time", Time),
    (6, "fieldsType", Text),
    (7, "fieldsV1", Raw),
    (8, "subresource", Text),
];
const OBJECT_REFERENCE: Fields = &[
    (1, "kind", Text),
    (2, "namespace", Text),
    (3, "name", Text),
    (4, "uid", Text),
    (5, "apiVersion", Text),
    (6, "resourceVersion", Text),
    (7, "fieldPath", Text),
];

const NAMESPACE: Fields = &[
    (1, "metadata", One(OBJECT_META)),
    (2, "spec", One(&[(1, "finalizers", Texts)])),
    (3, "status", One(&[(1, "phase", Text)])),
];
const CONFIG_MAP: Fields =
    &[(1, "metadata", One(OBJECT_META)), (2, "data", TextMap), (3, "binaryData", BytesMap), (4, "immutable", Bool)];
const SECRET: Fields = &[
    (1, "metadata", One(OBJECT_META)),
    (2, "data", BytesMap),
    (3, "type", Text),
    (4, "stringData", TextMap),
    (5, "immutable", Bool),
];
const SERVICE_ACCOUNT: Fields = &[
    (1, "metadata", One(OBJECT_META)),
    (2, "secrets", Many(OBJECT_REFERENCE)),
    (3, "imagePullSecrets", Many(&[(1, "name", Text)])),
    (4, "automountServiceAccountToken", Bool),
];
const EVENT_SOURCE: Fields = &[(1, "component", Text), (2, "host", Text)];
const EVENT_SERIES: Fields = &[(1, "count", Int), (2, "lastObservedTime", MicroTime)];
const EVENT: Fields = &[
    (1, "metadata", One(OBJECT_META)),
    (2, "involvedObject", One(OBJECT_REFERENCE)),
    (3, "reason", Text),
    (4, "message", Text),
    (5, "source", One(EVENT_SOURCE)),
    (6, "firstTimestamp", Time),
    (7, "lastTimestamp", Time),
    (8, "count", Int),
    (9, "type", Text),
    (10, "eventTime", MicroTime),
    (11, "series", One(EVENT_SERIES)),
    (12, "action", Text),
    (13, "related", One(OBJECT_REFERENCE)),
    (14, "reportingComponent", Text),
    (15, "reportingInstance", Text),
];
const NEW_EVENT: Fields = &[
    (1, "metadata", One(OBJECT_META)),
    (2, "eventTime", MicroTime),
    (3, "series", One(EVENT_SERIES)),
    (4, "reportingController", Text),
    (5, "reportingInstance", Text),
    (6, "action", Text),
    (7, "reason", Text),
    (8, "regarding", One(OBJECT_REFERENCE)),
    (9, "related", One(OBJECT_REFERENCE)),
    (10, "note", Text),
    (11, "type", Text),
    (12, "deprecatedSource", One(EVENT_SOURCE)),
    (13, "deprecatedFirstTimestamp", Time),
    (14, "deprecatedLastTimestamp", Time),
    (15, "deprecatedCount", Int),
];
const LEASE: Fields = &[
    (1, "metadata", One(OBJECT_META)),
    (
        2,
        "spec",
        One(&[
            (1, "holderIdentity", Text),
            (2, "leaseDurationSeconds", Count),
            (3, "acquireTime", MicroTime),
            (4, "renewTime", MicroTime),
            (5, "leaseTransitions", Count),
            (6, "strategy", Text),
            (7, "preferredHolder", Text),
        ]),
    ),
];
const ACCESS_REVIEW: Fields = &[
    (1, "metadata", One(OBJECT_META)),
    (
        2,
        "spec",
        One(&[
            (
                1,
                "resourceAttributes",
                One(&[
                    (1, "namespace", Text),
                    (2, "verb", Text),
                    (3, "group", Text),
                    (4, "version", Text),
                    (5, "resource", Text),
                    (6, "subresource", Text),
                    (7, "name", Text),
                ]),
            ),
            (2, "nonResourceAttributes", One(&[(1, "path", Text), (2, "verb", Text)])),
        ]),
    ),
];
const RULES_REVIEW: Fields = &[(1, "metadata", One(OBJECT_META)), (2, "spec", One(&[(1, "namespace", Text)]))];
const SUBJECT_REVIEW: Fields = &[(1, "metadata", One(OBJECT_META))];
const DELETE_OPTIONS: Fields = &[
    (1, "gracePeriodSeconds", Count),
    (2, "preconditions", One(&[(1, "uid", Text), (2, "resourceVersion", Text)])),
    (3, "orphanDependents", Bool),
    (4, "propagationPolicy", Text),
    (5, "dryRun", Texts),
];
