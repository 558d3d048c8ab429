//! Label and field selectors.

use serde_json::Value;

use super::{ApiResult, Kind};

/// Both selectors of a request, parsed.
#[derive(Debug, Clone, Default)]
pub struct Selector {}

#[expect(unused_variables)]
impl Selector {
    /// `app=web,tier in (a,b),!old` and `metadata.name=x,status.phase!=y`. Unknown field keys are 400.
    pub fn parse(kind: &Kind, labels: Option<&str>, fields: Option<&str>) -> ApiResult<Self> {
        unimplemented!()
    }

    pub fn matches(&self, object: &Value) -> bool {
        unimplemented!()
    }

    pub fn is_empty(&self) -> bool {
        unimplemented!()
    }
}
