//! What a client is told when a request fails: the Kubernetes `Status` object, built in one place.

use serde_json::{Map, Value, json};

use super::{
    Kind,
    fields::{FieldError, MOST_COMPLAINTS},
};
use crate::store::Revision;

/// `Status.reason`. One to one with the HTTP code but for `Expired`/`Gone` and `AlreadyExists`/`Conflict`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    AlreadyExists,
    Conflict,
    Expired,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    Invalid,
    TooManyRequests,
    InternalError,
    ServiceUnavailable,
    Timeout,
    /// Not upstream's, whose store has no such word: the disk is full. RFC 4918.
    InsufficientStorage,
}

impl Reason {
    pub fn code(self) -> u16 {
        match self {
            Reason::BadRequest => 400,
            Reason::Unauthorized => 401,
            Reason::Forbidden => 403,
            Reason::NotFound => 404,
            Reason::MethodNotAllowed => 405,
            Reason::NotAcceptable => 406,
            Reason::AlreadyExists | Reason::Conflict => 409,
            Reason::Expired => 410,
            Reason::RequestEntityTooLarge => 413,
            Reason::UnsupportedMediaType => 415,
            Reason::Invalid => 422,
            Reason::TooManyRequests => 429,
            Reason::InternalError => 500,
            Reason::ServiceUnavailable => 503,
            Reason::Timeout => 504,
            Reason::InsufficientStorage => 507,
        }
    }
}

/// One of `details.causes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// `FieldValueRequired`, `FieldValueInvalid`, `FieldManagerConflict`, …
    pub reason: &'static str,
    pub message: String,
    /// Path of the field, `spec.live.container.image`.
    pub field: String,
}

/// An error of the API, wording as upstream.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    pub reason: Reason,
    pub message: String,
    /// `details.group`, `details.kind` (plural for NotFound and Conflict, as upstream), `details.name`, `details.uid`.
    /// Boxed: every result carries room for an error.
    pub details: Option<Box<Details>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Details {
    pub group: String,
    pub kind: String,
    pub name: String,
    pub uid: Option<String>,
    pub causes: Vec<Cause>,
    pub retry_after_seconds: Option<u32>,
}

pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), details: None }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    pub fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(Reason::InternalError, format!("Internal error occurred: {message}"))
    }

    pub fn not_found(kind: &Kind, name: &str) -> Self {
        Self::about(kind, name, Reason::NotFound, format!("{} {name:?} not found", kind.qualified_plural()))
    }

    pub fn already_exists(kind: &Kind, name: &str) -> Self {
        Self::about(kind, name, Reason::AlreadyExists, format!("{} {name:?} already exists", kind.qualified_plural()))
    }

    pub fn forbidden(kind: &Kind, name: &str, why: impl std::fmt::Display) -> Self {
        Self::about(kind, name, Reason::Forbidden, format!("{} {name:?} is forbidden: {why}", kind.qualified_plural()))
    }

    /// 409: a compare did not hold.
    pub fn conflict(kind: &Kind, name: &str, why: impl std::fmt::Display) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", kind.qualified_plural());
        Self::about(kind, name, Reason::Conflict, message)
    }

    /// 409: somebody wrote in between.
    pub fn modified(kind: &Kind, name: &str) -> Self {
        const WHY: &str = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(kind, name, WHY)
    }

    /// 422 with one cause a field; of very many the first ones.
    pub fn invalid(kind: &Kind, name: &str, mut errors: Vec<FieldError>) -> Self {
        let more = errors.len() > MOST_COMPLAINTS;
        errors.truncate(MOST_COMPLAINTS);
        let mut listed: Vec<String> = errors.iter().map(ToString::to_string).collect();
        if more {
            listed.push("and more".to_owned());
        }
        let listed = match listed.as_slice() {
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        let message = format!("{} {name:?} is invalid: {listed}", kind.qualified_kind());
        let mut error = Self::about(kind, name, Reason::Invalid, message);
        if let Some(details) = &mut error.details {
            details.kind = kind.kind.clone();
            details.causes = errors.into_iter().map(FieldError::into_cause).collect();
        }
        error
    }

    /// 410 at the start of a watch.
    pub fn too_old(asked: Revision, oldest: Revision) -> Self {
        Self::new(Reason::Expired, format!("too old resource version: {asked} ({oldest})"))
    }

    /// 504 when a reader asks for what has not been written.
    pub fn too_large(asked: Revision, latest: Revision) -> Self {
        let mut error = Self::new(Reason::Timeout, format!("Too large resource version: {asked}, current: {latest}"));
        error.details = Some(Box::new(Details {
            causes: vec![Cause {
                reason: "ResourceVersionTooLarge",
                message: "Too large resource version".to_owned(),
                field: String::new(),
            }],
            retry_after_seconds: Some(1),
            ..Details::default()
        }));
        error
    }

    /// Adds a cause, for instance `NamespaceTerminating`.
    #[must_use]
    pub fn with_cause(mut self, cause: Cause) -> Self {
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    pub(super) fn about(kind: &Kind, name: &str, reason: Reason, message: String) -> Self {
        let details = Details {
            group: kind.group.clone(),
            kind: kind.plural.clone(),
            name: name.to_owned(),
            ..Details::default()
        };
        Self { reason, message, details: Some(Box::new(details)) }
    }

    pub fn code(&self) -> u16 {
        self.reason.code()
    }

    /// The `Status` object.
    pub fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": format!("{:?}", self.reason), "code": self.code(),
        });
        if let Some(details) = &self.details {
            status["details"] = details.to_json();
        }
        status
    }
}

impl Details {
    /// Empty fields are left out, as upstream does.
    fn to_json(&self) -> Value {
        let mut out = Map::new();
        for (key, value) in [("name", &self.name), ("group", &self.group), ("kind", &self.kind)] {
            if !value.is_empty() {
                out.insert(key.to_owned(), json!(value));
            }
        }
        if let Some(uid) = &self.uid {
            out.insert("uid".to_owned(), json!(uid));
        }
        if !self.causes.is_empty() {
            out.insert("causes".to_owned(), self.causes.iter().map(Cause::to_json).collect());
        }
        if let Some(seconds) = self.retry_after_seconds {
            out.insert("retryAfterSeconds".to_owned(), json!(seconds));
        }
        Value::Object(out)
    }
}

impl Cause {
    fn to_json(&self) -> Value {
        let mut out = json!({"reason": self.reason, "message": self.message});
        if !self.field.is_empty() {
            out["field"] = json!(self.field);
        }
        out
    }
}
