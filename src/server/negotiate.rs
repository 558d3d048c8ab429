//! What the client wants to read: the Accept header, walked in order of preference.

use axum::http::{HeaderMap, header};

use crate::registry::{ApiError, ApiResult, Reason};

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Yaml,
}

/// What objects are turned into before they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// As they are.
    Object,
    /// `meta.k8s.io` Table of this version, `v1` or `v1beta1`.
    Table(&'static str),
    /// PartialObjectMetadata, or its list.
    Partial(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    pub format: Format,
    pub shape: Shape,
}

impl Accepted {
    pub fn content_type(self) -> &'static str {
        match self.format {
            Format::Json => "application/json",
            Format::Yaml => "application/yaml",
        }
    }
}

/// Which discovery document is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discovery {
    /// APIVersions, APIGroupList.
    Legacy,
    /// APIGroupDiscoveryList of `v2` or `v2beta1`.
    Aggregated(&'static str),
}

/// One media range of an Accept header.
struct Range<'a> {
    media: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl Range<'_> {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }

    fn format(&self) -> Option<Format> {
        match self.media {
            "application/json" | "application/*" | "*/*" => Some(Format::Json),
            "application/yaml" | "application/x-yaml" => Some(Format::Yaml),
            _ => None,
        }
    }

    fn meta_version(&self) -> Option<&'static str> {
        match (self.parameter("g"), self.parameter("v")) {
            (Some("meta.k8s.io") | None, Some("v1")) => Some("v1"),
            (Some("meta.k8s.io") | None, Some("v1beta1")) => Some("v1beta1"),
            _ => None,
        }
    }

    fn shape(&self) -> Option<Shape> {
        match self.parameter("as") {
            None | Some("") => Some(Shape::Object),
            Some("Table") => self.meta_version().map(Shape::Table),
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") => self.meta_version().map(Shape::Partial),
            Some(_) => None,
        }
    }
}

/// What objects are to be written as; 406 when nothing offered can be written.
pub fn objects(headers: &HeaderMap) -> ApiResult<Accepted> {
    first(headers, |range| Some(Accepted { format: range.format()?, shape: range.shape()? })).unwrap_or_else(|| {
        Err(not_acceptable(
            "application/json, application/yaml, application/json;as=Table;g=meta.k8s.io;v=v1, \
             application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
        ))
    })
}

/// Which discovery document is to be written; 406 as for objects.
pub fn discovery(headers: &HeaderMap) -> ApiResult<Discovery> {
    first(headers, |range| {
        let aggregated = range.parameter("as") == Some("APIGroupDiscoveryList")
            && range.parameter("g") == Some("apidiscovery.k8s.io")
            && range.media == "application/json";
        match (range.parameter("as"), range.parameter("v")) {
            (Some(_), Some("v2")) if aggregated => Some(Discovery::Aggregated("v2")),
            (Some(_), Some("v2beta1")) if aggregated => Some(Discovery::Aggregated("v2beta1")),
            (Some(_), _) => None,
            (None, _) => range.format().map(|_| Discovery::Legacy),
        }
    })
    .unwrap_or_else(|| Err(not_acceptable("application/json")))
}

/// Whether the OpenAPI v2 document is wanted as protobuf and nothing else would do.
pub fn only_openapi_protobuf(headers: &HeaderMap) -> bool {
    let protobuf = |range: &Range<'_>| range.media.starts_with("application/com.github.proto-openapi.spec.v2");
    matches!(
        first(headers, |range| (range.format().is_some() || protobuf(range)).then(|| protobuf(range))),
        Some(Ok(true))
    )
}

/// The first range, by quality and then by place, that `choose` can serve. No header at all means anything goes.
fn first<T>(headers: &HeaderMap, choose: impl Fn(&Range<'_>) -> Option<T>) -> Option<ApiResult<T>> {
    let values: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let text = if values.iter().all(|v| v.trim().is_empty()) { "*/*".to_owned() } else { values.join(",") };
    let mut ranges: Vec<(u32, Range<'_>)> = text.split(',').filter_map(parse).collect();
    ranges.sort_by_key(|(quality, _)| std::cmp::Reverse(*quality));
    ranges.iter().find_map(|(_, range)| choose(range)).map(Ok)
}

/// One range with its quality in thousandths.
fn parse(text: &str) -> Option<(u32, Range<'_>)> {
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next().filter(|media| !media.is_empty())?;
    let parameters: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
    let quality = parameters
        .iter()
        .find(|(key, _)| *key == "q")
        .and_then(|(_, value)| value.parse::<f32>().ok())
        .map_or(1000, |q| (q.clamp(0.0, 1.0) * 1000.0) as u32);
    (quality > 0).then_some((quality, Range { media, parameters }))
}

fn not_acceptable(supported: &str) -> ApiError {
    let message = format!("only the following media types are accepted: {supported}");
    ApiError::new(Reason::NotAcceptable, message)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn headers(accept: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if !accept.is_empty() {
            headers.insert(header::ACCEPT, accept.parse().expect("a header value"));
        }
        headers
    }

    const fn json(shape: Shape) -> Option<Accepted> {
        Some(Accepted { format: Format::Json, shape })
    }

    #[rstest]
    #[case("", json(Shape::Object))]
    #[case("*/*", json(Shape::Object))]
    #[case("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", json(Shape::Table("v1")))]
    #[case("application/json;as=Table;v=v1beta1;g=meta.k8s.io", json(Shape::Table("v1beta1")))]
    #[case("application/json;as=Table;v=v7;g=meta.k8s.io,application/json", json(Shape::Object))]
    #[case("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", json(Shape::Partial("v1")))]
    #[case("application/vnd.kubernetes.protobuf,application/json", json(Shape::Object))]
    #[case("text/html,application/xml;q=0.9,*/*;q=0.8", json(Shape::Object))]
    #[case("application/json;q=0.5,application/yaml", Some(Accepted { format: Format::Yaml, shape: Shape::Object }))]
    #[case("application/vnd.kubernetes.protobuf", None)]
    #[case("text/html", None)]
    #[case("application/json;q=0", None)]
    fn chooses(#[case] accept: &str, #[case] expected: Option<Accepted>) {
        assert_eq!(objects(&headers(accept)).ok(), expected);
    }

    #[rstest]
    #[case(
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
        Some(Discovery::Aggregated("v2"))
    )]
    #[case(
        "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json",
        Some(Discovery::Aggregated("v2beta1"))
    )]
    #[case(
        "application/json;g=apidiscovery.k8s.io;v=v9;as=APIGroupDiscoveryList,application/json",
        Some(Discovery::Legacy)
    )]
    #[case("application/json, */*", Some(Discovery::Legacy))]
    #[case("text/html", None)]
    fn chooses_discovery(#[case] accept: &str, #[case] expected: Option<Discovery>) {
        assert_eq!(discovery(&headers(accept)).ok(), expected);
    }

    #[test]
    fn protobuf_is_taken_only_where_nothing_else_would_do() {
        let protobuf = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
        assert!(only_openapi_protobuf(&headers(protobuf)));
        assert!(!only_openapi_protobuf(&headers("application/json")));
        assert!(!only_openapi_protobuf(&headers(&format!("application/json,{protobuf}"))));
    }
}
