//! What the head of a request must be, whatever its path: one host, a query that its path knows.
//!
//! Which keys a path knows is read from the OpenAPI document, so nothing can be asked that is not
//! documented, and nothing that is asked is ignored. State: [`Queries`], made once per router.

use moirai_api::ErrorKind;
use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{MatchedPath, Query, Request, State};
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::{ContentBuilder, OpenApi, PathItem, Ref, RefOr, ResponseBuilder};

use super::Refusal;
use super::request::body_bytes;

/// The query keys of each documented path, by method.
#[derive(Debug)]
pub(super) struct Queries(HashMap<String, HashMap<Method, Vec<String>>>);

impl Queries {
    pub(super) fn of(document: &OpenApi) -> Self {
        let paths = document.paths.paths.iter();
        Self(paths.map(|(path, item)| (path.clone(), of_path(item))).collect())
    }

    /// What a query of `method` at `path` may say; `None` if the path has no such method.
    fn known(&self, path: &str, method: &Method) -> Option<&[String]> {
        // Answers to HEAD are those to GET without their bodies.
        let method = if method == Method::HEAD { &Method::GET } else { method };
        match self.0.get(path) {
            Some(methods) => methods.get(method).map(Vec::as_slice),
            // The document itself.
            None => (method == Method::GET).then_some(&[]),
        }
    }
}

fn of_path(item: &PathItem) -> HashMap<Method, Vec<String>> {
    let methods = [
        (Method::GET, &item.get),
        (Method::PUT, &item.put),
        (Method::POST, &item.post),
        (Method::PATCH, &item.patch),
        (Method::DELETE, &item.delete),
    ];
    let keys = |operation: &Operation| {
        let all = operation.parameters.iter().flatten();
        let queries = all.filter_map(|parameter| match parameter {
            RefOr::T(it) if it.parameter_in == ParameterIn::Query => Some(it.name.clone()),
            _ => None,
        });
        queries.collect()
    };
    let there = methods.into_iter().filter_map(|(method, it)| Some((method, it.as_ref()?)));
    there.map(|(method, operation)| (method, keys(operation))).collect()
}

/// Adds to each operation what every one may answer: a refusal.
pub(super) fn document_refusals(document: &mut OpenApi) {
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("Refusal"))).build();
    let description =
        "refused; the status is that of `kind` (400, 404, 405, 408, 413, 414, 415, 422, 431, 500)";
    let refused = ResponseBuilder::new().description(description);
    let refused = refused.content("application/json", body).build();
    for item in document.paths.paths.values_mut() {
        let PathItem { get, post, patch, delete, .. } = item;
        for operation in [get, post, patch, delete].into_iter().flatten() {
            let responses = &mut operation.responses.responses;
            responses.insert("default".to_owned(), refused.clone().into());
        }
    }
}

/// Refuses a request whose head is not right; passes on any other.
pub(super) async fn check(
    State(queries): State<Arc<Queries>>,
    path: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let wrong = host(request.version(), request.headers()).or_else(|| {
        let known = queries.known(path.as_ref()?.as_str(), request.method())?;
        query(&request, known)
    });
    let Some(text) = wrong else { return next.run(request).await };
    let _ = body_bytes(request).await;
    Refusal::new(ErrorKind::Malformed, text).into_response()
}

/// What is wrong with the host of a request (RFC 9112, 3.2).
fn host(version: Version, headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(HOST).iter();
    let Some(host) = values.next() else {
        let needed = version >= Version::HTTP_11;
        return needed.then(|| "the request has no Host header: HTTP/1.1 needs one".to_owned());
    };
    if values.next().is_some() {
        return Some("the request has more than one Host header: send one".to_owned());
    }
    let text = String::from_utf8_lossy(host.as_bytes());
    let is_host = text.is_empty() || (text.parse::<Authority>().is_ok() && !text.contains('@'));
    (!is_host)
        .then(|| format!("{text:?} in the Host header is no host: send for example Host: moirai"))
}

/// What is wrong with the query of a request whose path knows these keys.
fn query(request: &Request, known: &[String]) -> Option<String> {
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(request.uri()).ok()?.0;
    let mut seen: Vec<&str> = Vec::new();
    for (key, _) in &pairs {
        if !known.contains(key) {
            let (method, path) = (request.method(), request.uri().path());
            let knows = match known {
                [] => "takes no query".to_owned(),
                keys => format!("knows {}", keys.join(", ")),
            };
            return Some(format!("the query has an unknown key {key:?}: {method} {path} {knows}"));
        }
        if seen.contains(&key.as_str()) {
            return Some(format!("the query has {key:?} more than once: say it once"));
        }
        seen.push(key);
    }
    None
}
