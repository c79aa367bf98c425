//! Errors as clients of the OpenAI API read them.

use litplex_core::{Response, ServeError};
use litplex_http_core::raw_json::{Object, raw, text_of};
use litplex_http_core::request_name::RequestName;
use litplex_http_core::response::{self, HttpResponse};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::shape;

/// The number of characters of an unknown name that an error shows.
const SHOWN_CHARACTERS: usize = 100;

/// An error of a request.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) error: ServeError,
    /// The invalid field.
    pub(super) param: Option<String>,
    /// The headers of an error that the model raised.
    headers: Vec<(String, String)>,
    /// The reason, for clients that compare it.
    code: Option<&'static str>,
}

impl From<ServeError> for Refused {
    fn from(error: ServeError) -> Self {
        Self { error, param: None, headers: Vec::new(), code: None }
    }
}

impl From<shape::Mismatch> for Refused {
    fn from(mismatch: shape::Mismatch) -> Self {
        let shape::Mismatch { place, reason } = mismatch;
        let between = if place.is_empty() { "" } else { ": " };
        let error = ServeError::invalid_input(format!("{place}{between}{reason}"));
        let param = Some(place).filter(|place| !place.is_empty());
        Self { error, param, headers: Vec::new(), code: None }
    }
}

impl Refused {
    /// Returns the error that a worker answered with, and the other fields of its body.
    pub(super) fn given(response: Response) -> (Self, Object) {
        let text = std::str::from_utf8(&response.body).unwrap_or_default();
        let mut body = Object::parse(text).unwrap_or_default();
        let detail = body.take("detail").unwrap_or_else(|| raw(&""));
        let detail = text_of(detail.get()).unwrap_or_else(|| detail.get().into());
        let error = ServeError::new(response.status, detail);
        (Self { error, param: None, headers: response.headers, code: None }, body)
    }

    /// Returns the response to the request with this name.
    pub(super) fn response(&self, name: &RequestName) -> HttpResponse {
        let mut body = error_body(&self.error, self.param.as_deref());
        body.detail = Some(detail(&self.error.detail));
        if let Some(code) = self.code {
            body.error["code"] = code.into();
            body.error["type"] = "invalid_request_error".into();
        }
        let response = response::failed(&self.error, &body);
        response::with_headers(response, &self.headers).unwrap_or_else(|wrong| {
            tracing::error!(request_id = name.text(), "an HTTPException cannot be sent: {wrong}");
            error(&ServeError::internal())
        })
    }
}

/// Returns the error of a request that names a model which its caller cannot call. `known` are the models
/// that it can.
pub(super) fn no_such_model(wanted: &str, known: &[&str]) -> Refused {
    // A client chooses the length of the name.
    let shown: String = wanted.chars().take(SHOWN_CHARACTERS).collect();
    let cut = if shown.len() < wanted.len() { "…" } else { "" };
    let detail = format!(
        "The model `{shown}{cut}` does not exist or you do not have access to it; {}",
        models_there_are(known)
    );
    Refused { code: Some("model_not_found"), ..ServeError::not_found(detail).into() }
}

/// Returns the error of a request that must name a model, and does not.
pub(super) fn no_model(known: &[&str]) -> Refused {
    shape::Mismatch::new("model", format!("it is missing; {}", models_there_are(known))).into()
}

fn models_there_are(known: &[&str]) -> String {
    let known: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
    match &known[..] {
        [] => "there is no model that you can call".into(),
        [one] => format!("there is {one}"),
        _ => format!("there are {}", known.join(", ")),
    }
}

/// Returns the response to an error: with `error`, which clients of this API read, and with `detail`,
/// which all errors of the server have.
pub fn error(error: &ServeError) -> HttpResponse {
    Refused::from(error.clone()).response(&RequestName::default())
}

/// Returns the detail as the model gave it: one that is not a text arrives here as JSON.
fn detail(text: &str) -> Box<RawValue> {
    let is_json = text.starts_with(['[', '{']);
    let value = is_json.then(|| RawValue::from_string(text.to_owned()).ok()).flatten();
    value.unwrap_or_else(|| raw(&text))
}

/// An error as the API has it.
#[derive(Debug, Serialize)]
pub(super) struct ErrorBody {
    error: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<Box<RawValue>>,
}

pub(super) fn error_body(error: &ServeError, param: Option<&str>) -> ErrorBody {
    let kind = match error.status() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        400..500 => "invalid_request_error",
        _ => "server_error",
    };
    let message = &error.detail;
    let error = json!({"message": message, "type": kind, "param": param, "code": null});
    ErrorBody { error, detail: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_is_what_the_model_gave() {
        let wrong = r#"[{"msg": "wrong", "input": 1.5777777777770001}]"#;
        assert_eq!(detail(wrong).get(), wrong);
        assert_eq!(detail("[sic] no JSON").get(), r#""[sic] no JSON""#);
        assert_eq!(detail("7").get(), r#""7""#);
    }

    #[test]
    fn a_mismatch_names_its_field() {
        let refused = Refused::from(shape::Mismatch::new("n", "it is odd"));
        let body = serde_json::to_value(error_body(&refused.error, refused.param.as_deref()));
        let expected = json!({
            "message": "n: it is odd", "type": "invalid_request_error", "param": "n", "code": null,
        });
        assert_eq!(body.unwrap()["error"], expected);
    }
}
