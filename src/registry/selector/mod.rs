//! Label and field selectors, and watches seen through them.

mod fields;
mod labels;
#[cfg(test)]
mod tests;
mod watch;

use serde_json::Value;

use super::{ApiError, ApiResult, Kind};
use fields::FieldRequirement;
use labels::LabelRequirement;

pub use watch::Filtered;

/// Both selectors of a request, parsed. All requirements must hold.
#[derive(Debug, Clone, Default)]
pub struct Selector {
    labels: Vec<LabelRequirement>,
    fields: Vec<FieldRequirement>,
}

impl Selector {
    /// `app=web,tier in (a,b),!old` and `metadata.name=x,status.phase!=y`. Unknown field keys are 400.
    pub fn parse(kind: &Kind, labels: Option<&str>, fields: Option<&str>) -> ApiResult<Self> {
        let labels = labels::parse(labels.unwrap_or_default()).map_err(ApiError::bad_request)?;
        let fields = fields::parse(kind, fields.unwrap_or_default()).map_err(ApiError::bad_request)?;
        Ok(Self { labels, fields })
    }

    pub fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.labels.iter().all(|r| r.matches(labels)) && self.fields.iter().all(|r| r.matches(object))
    }

    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The one name that can match, when `metadata.name=…` is asked for.
    pub fn single_name(&self) -> Option<&str> {
        self.fields.iter().find_map(FieldRequirement::exact_name)
    }
}
