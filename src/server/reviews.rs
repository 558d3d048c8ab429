//! The questions clients ask about themselves: who am I, may I. Whoever came in may do everything.

use serde_json::{Value, json};

use super::discovery::{REVIEWS, Review};
use crate::registry::{ApiError, ApiResult, Reason};

/// Who whoever is let in is.
pub const USER: &str = "gaia:admin";
pub const GROUPS: [&str; 2] = ["system:masters", "system:authenticated"];

/// The review at a path, if that is what it is.
pub fn at(group: &str, version: &str, plural: &str) -> Option<Review> {
    REVIEWS.into_iter().find(|review| (review.group, review.version, review.plural) == (group, version, plural))
}

/// The question with its answer in `status`.
pub fn answer(review: Review, mut question: Value) -> ApiResult<Value> {
    let api_version = format!("{}/{}", review.group, review.version);
    let given = |field: &str| question[field].as_str().unwrap_or_default().to_owned();
    let (kind, version) = (given("kind"), given("apiVersion"));
    if (!kind.is_empty() && kind != review.kind) || (!version.is_empty() && version != api_version) {
        let message = format!("the request body is a {version} {kind}, not a {api_version} {}", review.kind);
        return Err(ApiError::new(Reason::BadRequest, message));
    }
    question["kind"] = json!(review.kind);
    question["apiVersion"] = json!(api_version);
    if question["metadata"].is_null() {
        question["metadata"] = json!({});
    }
    question["status"] = match review.kind {
        "SelfSubjectAccessReview" => json!({"allowed": true, "reason": "whoever is let in may do everything"}),
        "SelfSubjectRulesReview" => json!({
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "incomplete": false,
        }),
        _ => json!({"userInfo": {"username": USER, "groups": GROUPS}}),
    };
    Ok(question)
}
