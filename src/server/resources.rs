//! The verbs on objects: which request is which call of the registry.

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, Method, StatusCode},
    response::Response,
};

use super::{
    ServerState, body, method_not_allowed, negotiate, not_found,
    path::ResourcePath,
    query::{Params, invalid_option},
    reply, reviews, scale,
    shape::{self, Form},
    table::IncludeObject,
    watch, write,
};
use crate::registry::{
    ApiError, ApiResult, FieldValidation, Kind, List, ListOptions, ObjectName, Reason, Selector, Subresource,
};

/// One request on objects of a known kind.
pub struct Call<'a> {
    pub state: &'a ServerState,
    pub kind: &'a Kind,
    pub namespace: Option<&'a str>,
    pub subresource: Subresource,
    pub params: &'a Params,
    pub headers: &'a HeaderMap,
    pub form: Form,
}

/// Answers a request on a resource path.
pub async fn handle(state: &ServerState, path: ResourcePath, params: Params, request: Request) -> ApiResult<Response> {
    let (parts, body) = request.into_parts();
    if let Some(review) = reviews::at(&path.group, &path.version, &path.plural) {
        return match (parts.method, &path.name) {
            (Method::POST, None) => answer_review(review, &parts.headers, body).await,
            _ => Err(method_not_allowed()),
        };
    }
    let kind = state.registry.kinds().by_plural(&path.group, &path.version, &path.plural).ok_or_else(not_found)?;
    if path.namespace.is_some() && !kind.namespaced {
        return Err(not_found());
    }
    let subresource = match path.subresource.as_deref() {
        None => Subresource::Main,
        Some("scale") if kind.scale.is_some() => Subresource::Main,
        // How a namespace that cannot be emptied is given up.
        Some("finalize") if kind.group.is_empty() && kind.kind == "Namespace" && parts.method == Method::PUT => {
            Subresource::Main
        }
        Some("status") if kind.has_status => Subresource::Status,
        Some(_) => return Err(not_found()),
    };
    let form = Form {
        accepted: negotiate::objects(&parts.headers)?,
        pretty: params.get("pretty").is_some_and(|text| !matches!(text, "0" | "false")),
        include: IncludeObject::parse(params.get("includeObject"))?,
        now: state.clock.now(),
    };
    let namespace = path.namespace.as_deref();
    let call = Call { state, kind: &kind, namespace, subresource, params: &params, headers: &parts.headers, form };
    match path.name {
        None => collection(&call, &parts.method, body).await,
        Some(_) if kind.namespaced && namespace.is_none() => Err(not_found()),
        Some(name) => {
            let name = ObjectName { namespace: path.namespace.clone(), name };
            match kind.scale.as_ref().filter(|_| path.subresource.as_deref() == Some("scale")) {
                Some(place) => scale::answer(&call, place, &parts.method, &name, body).await,
                None => item(&call, &parts.method, &name, body).await,
            }
        }
    }
}

/// Upstream's word for what a request does.
pub fn verb(method: &Method, named: bool, watching: bool) -> &'static str {
    match *method {
        Method::GET | Method::HEAD if watching => "watch",
        Method::GET | Method::HEAD if named => "get",
        Method::GET | Method::HEAD => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if named => "delete",
        Method::DELETE => "deletecollection",
        _ => "other",
    }
}

async fn answer_review(review: super::discovery::Review, headers: &HeaderMap, body: Body) -> ApiResult<Response> {
    let bytes = body::read(body).await?;
    let question = body::object(&body::media_type(headers), &bytes, FieldValidation::Ignore)?.value;
    Ok(reply::json(StatusCode::CREATED, &reviews::answer(review, question)?))
}

async fn collection(call: &Call<'_>, method: &Method, body: Body) -> ApiResult<Response> {
    // Objects are made and removed in one namespace at a time.
    let one_place = !call.kind.namespaced || call.namespace.is_some();
    match *method {
        Method::GET | Method::HEAD if call.params.flag("watch")? => {
            watch::answer(call.state, call.kind, call.namespace, selector(call)?, call.params, call.form).await
        }
        Method::GET | Method::HEAD => list(call).await,
        Method::POST if one_place => write::create(call, body).await,
        Method::DELETE if one_place => write::delete_collection(call, body).await,
        _ => Err(method_not_allowed()),
    }
}

async fn item(call: &Call<'_>, method: &Method, name: &ObjectName, body: Body) -> ApiResult<Response> {
    match *method {
        Method::GET | Method::HEAD if call.params.flag("watch")? => {
            let fields = format!("metadata.name={}", name.name);
            let selector = Selector::parse(call.kind, None, Some(&fields))?;
            watch::answer(call.state, call.kind, call.namespace, selector, call.params, call.form).await
        }
        Method::GET | Method::HEAD => {
            let version = call.state.registry.get(call.kind, name).await?;
            shape::object(StatusCode::OK, call.form, call.kind, &version)
        }
        Method::PUT => write::replace(call, name, body).await,
        Method::PATCH => write::patch(call, name, body).await,
        Method::DELETE if call.subresource == Subresource::Main => write::delete(call, name, body).await,
        _ => Err(method_not_allowed()),
    }
}

fn selector(call: &Call<'_>) -> ApiResult<Selector> {
    Selector::parse(call.kind, call.params.filled("labelSelector"), call.params.filled("fieldSelector"))
}

async fn list(call: &Call<'_>) -> ApiResult<Response> {
    shape::list(call.form, call.kind, &listed(call).await?)
}

/// The objects a collection request means.
pub async fn listed(call: &Call<'_>) -> ApiResult<List> {
    if call.params.get("sendInitialEvents").is_some() {
        let why = "Forbidden: sendInitialEvents is forbidden for list".to_owned();
        return Err(invalid_option("ListOptions", "sendInitialEvents", ("FieldValueForbidden", why)));
    }
    if call.params.filled("continue").is_some() && call.params.filled("resourceVersion").is_some_and(|rv| rv != "0") {
        let message = "specifying resource version is not allowed when using continue";
        return Err(ApiError::new(Reason::BadRequest, message));
    }
    let limit = call.params.number("limit")?.filter(|limit| *limit > 0);
    let options = ListOptions {
        selector: selector(call)?,
        limit: limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
        continue_token: call.params.filled("continue").map(str::to_owned),
    };
    let list = call.state.registry.list(call.kind, call.namespace, &options).await?;
    fresh_enough(call.params, &list)?;
    Ok(list)
}

/// We always answer with the latest: that is not older than anything, but it may be something else than asked for.
fn fresh_enough(params: &Params, list: &List) -> ApiResult<()> {
    let matching = params.filled("resourceVersionMatch");
    let Some(text) = params.filled("resourceVersion") else {
        return match matching {
            None => Ok(()),
            Some(_) => {
                let why = "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided";
                Err(invalid_option("ListOptions", "resourceVersionMatch", ("FieldValueForbidden", why.to_owned())))
            }
        };
    };
    let asked = watch::revision(text)?;
    if asked > list.revision {
        return Err(ApiError::too_large(asked, list.revision));
    }
    if matching == Some("Exact") && asked != list.revision {
        let message = format!("The provided resource version {asked} is no longer kept for lists; list the latest");
        return Err(ApiError::new(Reason::Expired, message));
    }
    Ok(())
}
