//! In which form a client wants its answer: the object, a Table of it, or its metadata only
//! (apiserver `pkg/endpoints/handlers/negotiation`). JSON is the one encoding so far.

use super::status::Failure;
use super::writing::Writing;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Plain(Writing),
    Table,
    Metadata,
}

/// How the components of this project ask for objects as they are held. Upstream's server takes a
/// parameter that it does not know for none (`acceptMediaTypeOptions`).
pub const BARE: &str = "application/json;empty=omitted";

/// One media type of an `Accept` header, with its parameters.
pub struct Media<'a> {
    pub kind: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Media<'a> {
    pub fn parameter(&self, name: &str) -> &'a str {
        let found = self.parameters.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| *value).unwrap_or_default()
    }
    pub fn is_json(&self) -> bool {
        ["application/json", "application/*", "*/*"].contains(&self.kind)
    }
}

/// What an `Accept` header names, in its order.
pub fn media(accept: &str) -> Vec<Media<'_>> {
    accept.split(',').filter(|text| !text.trim().is_empty()).map(one).collect()
}

fn one(text: &str) -> Media<'_> {
    let mut parts = text.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default();
    Media { kind, parameters: parts.filter_map(|part| part.split_once('=')).collect() }
}

/// The first form of the header that there is.
pub fn form(accept: &str) -> Result<Form, Failure> {
    if accept.trim().is_empty() {
        return Ok(Form::Plain(Writing::Go));
    }
    for media in media(accept).iter().filter(|media| media.is_json()) {
        let ours = media.parameter("g") == "meta.k8s.io";
        match media.parameter("as") {
            "" if media.parameter("empty") == "omitted" => return Ok(Form::Plain(Writing::Bare)),
            "" => return Ok(Form::Plain(Writing::Go)),
            "Table" if ours && ["v1", "v1beta1"].contains(&media.parameter("v")) => {
                return Ok(Form::Table);
            }
            "PartialObjectMetadata" | "PartialObjectMetadataList" if ours => {
                return Ok(Form::Metadata);
            }
            _ => {}
        }
    }
    Err(Failure::not_acceptable("application/json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_form_that_there_is_is_taken() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        let old = "application/vnd.kubernetes.protobuf, application/json;q=0.5";
        let plain = || Ok(Form::Plain(Writing::Go));
        let cases = [
            ("", plain()),
            ("*/*", plain()),
            ("application/json, */*", plain()),
            (BARE, Ok(Form::Plain(Writing::Bare))),
            (kubectl, Ok(Form::Table)),
            (old, plain()),
            ("application/json;as=Table;v=v7;g=meta.k8s.io,application/json", plain()),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Ok(Form::Metadata),
            ),
        ];
        for (accept, expected) in cases {
            assert_eq!(form(accept), expected, "{accept}");
        }
        for none in ["application/vnd.kubernetes.protobuf", "text/html"] {
            assert_eq!(form(none).expect_err(none).code, 406);
        }
    }
}
