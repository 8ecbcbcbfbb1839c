//! Which objects a list or a watch is about: label selectors (apimachinery
//! `pkg/labels/selector.go`) and field selectors (`pkg/fields/selector.go`).

use super::status::Failure;
use super::versions::Served;
use kubesim_actors::objects::{Name, Object, names};
use serde_json::Value;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selector {
    labels: Vec<Label>,
    fields: Vec<Field>,
}

#[derive(Clone, Debug, PartialEq)]
struct Label {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
    Above(i64),
    Below(i64),
}

#[derive(Clone, Debug, PartialEq)]
struct Field {
    name: String,
    value: String,
    equal: bool,
}

impl Selector {
    pub fn parse(served: &Served, labels: &str, fields: &str) -> Result<Selector, Failure> {
        let labels = parse_labels(labels).map_err(Failure::bad_request)?;
        Ok(Selector { labels, fields: parse_fields(served, fields)? })
    }

    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub fn matches(&self, object: &Object) -> bool {
        self.labels.iter().all(|label| label.test.holds(object.label(&label.key)))
            && self.fields_match(object)
    }

    fn fields_match(&self, object: &Object) -> bool {
        let mut json = None;
        self.fields.iter().all(|field| {
            let equal = match plain(object, &field.name) {
                Some(value) => value == field.value,
                None => {
                    let json = json.get_or_insert_with(|| object.to_json());
                    in_json(json, &field.name) == field.value
                }
            };
            equal == field.equal
        })
    }
}

impl Test {
    fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        let among =
            |values: &[String]| value.is_some_and(|value| values.iter().any(|v| v == value));
        match self {
            Test::Exists => value.is_some(),
            Test::Absent => value.is_none(),
            Test::In(values) => among(values),
            Test::NotIn(values) => !among(values),
            Test::Above(than) => number().is_some_and(|number| number > *than),
            Test::Below(than) => number().is_some_and(|number| number < *than),
        }
    }
}

/// The fields that are at hand.
fn plain<'a>(object: &'a Object, field: &str) -> Option<&'a str> {
    match field {
        "metadata.name" => Some(&object.key.name),
        "metadata.namespace" => Some(&object.key.namespace),
        "spec.nodeName" => {
            let node = object.pod_facts()?.node();
            Some(node.map(Name::as_str).unwrap_or_default())
        }
        "status.phase" => {
            let pod = object.pod().map(|(_, status)| &status.phase);
            let phase = pod.or(object.namespace().map(|(_, status)| &status.phase))?;
            Some(phase.as_deref().unwrap_or_default())
        }
        _ => None,
    }
}

fn in_json(json: &Value, field: &str) -> String {
    let event = |name: &str| json["kind"] == "Event" && field == name;
    let path = match field {
        _ if event("reportingComponent") => "reportingComponent",
        // Of a Job.
        "status.successful" => "status.succeeded",
        _ => field,
    };
    let found = path.split('.').fold(json, |value, step| &value[step]);
    match found {
        Value::String(text) => text.clone(),
        // Booleans and counts that are left out are false and nought.
        Value::Null if ["spec.unschedulable", "spec.hostNetwork"].contains(&field) => {
            "false".to_owned()
        }
        Value::Null if ["status.replicas", "status.successful"].contains(&field) => "0".to_owned(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn parse_fields(served: &Served, text: &str) -> Result<Vec<Field>, Failure> {
    let mut fields = Vec::new();
    for term in split_unescaped(text) {
        let Some((name, equal, value)) = split_term(&term) else {
            let message = format!(
                "invalid field selector {text:?}: {term:?}: can't understand it; a term is \
                 NAME=VALUE, NAME==VALUE or NAME!=VALUE"
            );
            return Err(Failure::bad_request(message));
        };
        let Some(held) = served.selected(name) else {
            return Err(Failure::bad_request(not_selected(served, name)));
        };
        fields.push(Field { name: held, value: unescape(value), equal });
    }
    Ok(fields)
}

/// As the kind's conversion has it (kubernetes `pkg/apis/core/v1/conversion.go`; apiextensions'
/// `pkg/apiserver/conversion/converter.go`), or, of one that is selected by its metadata only,
/// apimachinery's `DefaultMetaV1FieldSelectorConversion`.
fn not_selected(served: &Served, name: &str) -> String {
    if served.selects_more() {
        return format!("field label not supported: {name}");
    }
    let metadata = r#"only "metadata.name", "metadata.namespace""#;
    format!("{name:?} is not a known field selector: {metadata}")
}

fn split_unescaped(text: &str) -> Vec<String> {
    let (mut terms, mut term, mut escaped) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        if c == ',' && !escaped {
            terms.push(std::mem::take(&mut term));
            continue;
        }
        escaped = c == '\\' && !escaped;
        term.push(c);
    }
    terms.push(term);
    terms.retain(|term| !term.is_empty());
    terms
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    let at = term.find(['=', '!'])?;
    let (name, rest) = term.split_at(at);
    for (sign, equal) in [("!=", false), ("==", true), ("=", true)] {
        if let Some(value) = rest.strip_prefix(sign) {
            return Some((name, equal, value));
        }
    }
    None
}

fn unescape(value: &str) -> String {
    let (mut plain, mut escaped) = (String::new(), false);
    for c in value.chars() {
        escaped = c == '\\' && !escaped;
        if !escaped {
            plain.push(c);
        }
    }
    plain
}

fn parse_labels(text: &str) -> Result<Vec<Label>, String> {
    let mut labels = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let requirement = parse_label(rest).and_then(|(label, after)| {
            let wrong = names::qualified(&label.key);
            match wrong.is_empty() {
                true => Ok((label, after)),
                // Upstream's has no path to tell of.
                false => {
                    Err(format!("<nil>: Invalid value: {:?}: {}", label.key, wrong.join("; ")))
                }
            }
        });
        let told = |why| format!("unable to parse requirement: {why}");
        let (label, after) = requirement.map_err(told)?;
        labels.push(label);
        let after = after.trim_start();
        rest = match after.strip_prefix(',') {
            Some(more) if !more.trim().is_empty() => more.trim_start(),
            Some(_) => return Err("found '', expected: identifier after ','".to_owned()),
            None if after.is_empty() => after,
            None => {
                let found = token(after);
                return Err(format!("found '{found}', expected: ',' or 'end of string'"));
            }
        };
    }
    Ok(labels)
}

fn is_sign(c: char) -> bool {
    matches!(c, '=' | '!' | '<' | '>' | '(' | ')' | ',') || c.is_whitespace()
}

fn word(text: &str) -> (&str, &str) {
    text.split_at(text.find(is_sign).unwrap_or(text.len()))
}

/// The next thing that upstream's lexer would see.
fn token(text: &str) -> &str {
    match word(text) {
        ("", rest) => &rest[..rest.chars().next().map_or(0, char::len_utf8)],
        (word, _) => word,
    }
}

fn parse_label(text: &str) -> Result<(Label, &str), String> {
    if let Some(rest) = text.strip_prefix('!') {
        let (key, rest) = word(rest.trim_start());
        return Ok((Label { key: key.to_owned(), test: Test::Absent }, rest));
    }
    let (key, rest) = word(text);
    let rest = rest.trim_start();
    let label = |test| Label { key: key.to_owned(), test };
    for (sign, equal) in [("!=", false), ("==", true), ("=", true)] {
        if let Some(rest) = rest.strip_prefix(sign) {
            let (value, rest) = word(rest.trim_start());
            let values = checked(key, vec![value])?;
            let test = if equal { Test::In(values) } else { Test::NotIn(values) };
            return Ok((label(test), rest));
        }
    }
    for (sign, above) in [(">", true), ("<", false)] {
        if let Some(rest) = rest.strip_prefix(sign) {
            let (value, rest) = word(rest.trim_start());
            let number = value.parse().map_err(|_| {
                let why = "for 'Gt', 'Lt' operators, the value must be an integer";
                format!("values[0]: Invalid value: {value:?}: {why}")
            })?;
            return Ok((
                label(if above { Test::Above(number) } else { Test::Below(number) }),
                rest,
            ));
        }
    }
    let (operator, after) = word(rest);
    match operator {
        "" => Ok((label(Test::Exists), rest)),
        "in" | "notin" => {
            let (values, rest) = parse_values(key, after.trim_start())?;
            let test = if operator == "in" { Test::In(values) } else { Test::NotIn(values) };
            Ok((label(test), rest))
        }
        other => Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")),
    }
}

fn parse_values<'a>(key: &str, text: &'a str) -> Result<(Vec<String>, &'a str), String> {
    let missing = || format!("found '{}' expected: '('", token(text));
    let open = text.strip_prefix('(').ok_or_else(missing)?;
    let missing = || "found '', expected: ',' or ')'".to_owned();
    let (inside, rest) = open.split_once(')').ok_or_else(missing)?;
    Ok((checked(key, inside.split(',').map(str::trim).collect())?, rest))
}

/// In upstream's order, which is how it numbers them.
fn checked(key: &str, mut values: Vec<&str>) -> Result<Vec<String>, String> {
    values.sort_unstable();
    for (index, value) in values.iter().enumerate() {
        let wrong = names::label_value(value);
        if !wrong.is_empty() {
            let why = wrong.join("; ");
            return Err(format!("values[{index}][{key}]: Invalid value: {value:?}: {why}"));
        }
    }
    Ok(values.into_iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubesim_actors::objects::Kind;
    use serde_json::json;

    fn pod(labels: Value, node: &str) -> Object {
        let object = Object::from_json(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "namespace": "x", "labels": labels},
            "spec": {"nodeName": node, "containers": []}, "status": {"phase": "Running"}}));
        object.expect("a pod")
    }

    #[test]
    fn labels_are_chosen_as_upstream_does() {
        let object = pod(json!({"app": "web", "tier": "5"}), "n1");
        let cases = [
            ("", true),
            ("app", true),
            ("!app", false),
            ("!other", true),
            ("app=web", true),
            ("app = web , tier", true),
            ("app==db", false),
            ("app!=db", true),
            ("other!=db", true),
            ("app in (db, web)", true),
            ("app notin (db,web)", false),
            ("other notin (db)", true),
            ("tier>4,tier<6", true),
            ("tier>5", false),
            ("app>1", false),
            ("empty=", false),
        ];
        for (text, expected) in cases {
            let selector = Selector::parse(&Served::held(Kind::Pod), text, "").expect(text);
            assert_eq!(selector.matches(&object), expected, "{text}");
        }
        let requirement = "unable to parse requirement: ";
        for (wrong, why) in [
            ("app in web", "found 'web' expected: '('"),
            ("app in (web", "found '', expected: ',' or ')'"),
            ("a b", "found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("a>x", "values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value"),
            ("-a=b", "<nil>: Invalid value: \"-a\": name part must consist of"),
            ("a in (c,-)", "values[0][a]: Invalid value: \"-\": a valid label must be"),
        ] {
            let failure = Selector::parse(&Served::held(Kind::Pod), wrong, "").expect_err(wrong);
            let told = failure.message.strip_prefix(requirement).expect(wrong);
            assert_eq!((failure.code, told.starts_with(why)), (400, true), "{told}");
        }
        for (wrong, why) in [
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
            ("a=b,", "found '', expected: identifier after ','"),
        ] {
            let failure = Selector::parse(&Served::held(Kind::Pod), wrong, "").expect_err(wrong);
            assert_eq!((failure.code, failure.message.as_str()), (400, why));
        }
        assert!(Selector::parse(&Served::held(Kind::Pod), "=a", "").is_err());
    }

    #[test]
    fn fields_are_those_of_the_kind() {
        let object = pod(json!({}), "n1");
        let cases = [
            ("metadata.name=a,metadata.namespace=x", true),
            ("spec.nodeName=n1", true),
            ("spec.nodeName!=n1", false),
            ("spec.nodeName=", false),
            ("status.phase!=Succeeded,status.phase!=Failed", true),
            ("status.podIP=", true),
            ("spec.hostNetwork=false", true),
        ];
        for (text, expected) in cases {
            let selector = Selector::parse(&Served::held(Kind::Pod), "", text).expect(text);
            assert_eq!(selector.matches(&object), expected, "{text}");
        }
        let failure = Selector::parse(&Served::held(Kind::Pod), "", "spec.image=x")
            .expect_err("no such field");
        assert_eq!(failure.message, "field label not supported: spec.image");
        let failure = Selector::parse(&Served::held(Kind::ConfigMap), "", "data.a=x")
            .expect_err("no such field");
        let metadata = r#"only "metadata.name", "metadata.namespace""#;
        assert_eq!(
            failure.message,
            format!("\"data.a\" is not a known field selector: {metadata}")
        );
        assert!(Selector::parse(&Served::held(Kind::Pod), "", "metadata.name").is_err());
        let escaped = Selector::parse(&Served::held(Kind::Pod), "", r"metadata.name=a\,b\=c")
            .expect("escaped");
        assert_eq!(escaped.fields[0].value, "a,b=c");
    }
}
