//! Query parameters, decoded once and read by name.

use axum::{extract::Query, http::Uri};

use crate::registry::{ApiError, ApiResult, Cause, FieldValidation, Reason, error::Details};

/// The parameters of one request, in order; an absent one and an empty one are told apart.
#[derive(Debug, Clone, Default)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// A query that cannot be decoded is 400.
    pub fn of(uri: &Uri) -> ApiResult<Self> {
        Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map(|Query(pairs)| Self(pairs))
            .map_err(|error| ApiError::new(Reason::BadRequest, format!("the query cannot be read: {error}")))
    }

    /// The first value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// As [`get`](Self::get), an empty value counting as absent.
    pub fn filled(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// 400 when there is a parameter of another name.
    pub fn only(&self, names: &[&str]) -> ApiResult<()> {
        match self.0.iter().find(|(key, _)| !names.contains(&key.as_str())) {
            None => Ok(()),
            Some((key, _)) => {
                let message = format!("no query parameter is called {key:?}; there are {}", names.join(", "));
                Err(ApiError::new(Reason::BadRequest, message))
            }
        }
    }

    /// As upstream reads booleans of a query: given without a value means true.
    pub fn flag(&self, name: &str) -> ApiResult<bool> {
        match self.get(name) {
            None => Ok(false),
            Some("" | "1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some(other) => Err(bad_value(name, other, "true or false")),
        }
    }

    pub fn number(&self, name: &str) -> ApiResult<Option<u64>> {
        self.filled(name)
            .map(|text| text.parse().map_err(|_| bad_value(name, text, "a number that is not negative")))
            .transpose()
    }

    /// `dryRun`: absent, or exactly `All`. `options` names the options type in the message, `PatchOptions`.
    pub fn dry_run(&self, options: &str) -> ApiResult<bool> {
        let mut dry = false;
        for value in self.all("dryRun") {
            if value != "All" {
                return Err(invalid_option(options, "dryRun", not_supported(value, "\"All\"")));
            }
            dry = true;
        }
        Ok(dry)
    }

    /// `fieldValidation`, or `unsaid` when the client does not say.
    pub fn field_validation(&self, options: &str, unsaid: FieldValidation) -> ApiResult<FieldValidation> {
        match self.filled("fieldValidation") {
            None => Ok(unsaid),
            Some("Warn") => Ok(FieldValidation::Warn),
            Some("Strict") => Ok(FieldValidation::Strict),
            Some("Ignore") => Ok(FieldValidation::Ignore),
            Some(other) => {
                let supported = "\"Ignore\", \"Strict\", \"Warn\"";
                Err(invalid_option(options, "fieldValidation", not_supported(other, supported)))
            }
        }
    }
}

fn bad_value(name: &str, value: &str, wanted: &str) -> ApiError {
    ApiError::new(Reason::BadRequest, format!("query parameter {name}: {value:?} is not {wanted}"))
}

fn not_supported(value: &str, supported: &str) -> (&'static str, String) {
    ("FieldValueNotSupported", format!("Unsupported value: {value:?}: supported values: {supported}"))
}

/// 422 about a query parameter, worded as upstream words invalid options.
pub fn invalid_option(options: &str, field: &str, (reason, message): (&'static str, String)) -> ApiError {
    ApiError {
        reason: Reason::Invalid,
        message: format!("{options}.meta.k8s.io \"\" is invalid: {field}: {message}"),
        details: Some(Box::new(Details {
            group: "meta.k8s.io".to_owned(),
            kind: options.to_owned(),
            causes: vec![Cause { reason, message, field: field.to_owned() }],
            ..Details::default()
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(query: &str) -> Params {
        Params::of(&format!("/x?{query}").parse().expect("a valid URI")).expect("a readable query")
    }

    #[test]
    fn tells_absent_from_empty_and_decodes_values() {
        let p = params("watch&labelSelector=a%3Db&resourceVersion=");
        assert_eq!(p.get("labelSelector"), Some("a=b"));
        assert_eq!(p.get("resourceVersion"), Some(""));
        assert_eq!(p.filled("resourceVersion"), None);
        assert!(p.flag("watch").expect("a flag"));
        assert!(!p.flag("follow").expect("an absent flag"));
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert_eq!(params("watch=maybe").flag("watch").expect_err("not a flag").code(), 400);
        assert_eq!(params("limit=-1").number("limit").expect_err("negative").code(), 400);
        let error = params("dryRun=Some").dry_run("PatchOptions").expect_err("unknown dry run");
        assert_eq!(error.code(), 422);
        assert!(error.message.contains("dryRun: Unsupported value: \"Some\": supported values: \"All\""));
        let unknown = params("fieldValidation=x").field_validation("CreateOptions", FieldValidation::Strict);
        assert_eq!(unknown.expect_err("unknown").code(), 422);
    }
}
