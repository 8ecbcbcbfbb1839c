//! Values as Go's `%#v` prints them: what is told of an invalid one that is no plain text or number
//! (`ErrorBody` in apimachinery's `pkg/util/validation/field/errors.go`).

use crate::objects::LabelSelector;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;

fn words<T>(items: impl IntoIterator<Item = T>, word: impl FnMut(T) -> String) -> String {
    items.into_iter().map(word).collect::<Vec<_>>().join(", ")
}

/// `[]string`.
pub(crate) fn list(list: Option<&[String]>) -> String {
    match list {
        None => "[]string(nil)".to_owned(),
        Some(all) => format!("[]string{{{}}}", words(all, |text| format!("{text:?}"))),
    }
}

/// `map[string]string`.
pub(crate) fn map(map: Option<&BTreeMap<String, String>>) -> String {
    match map {
        None => "map[string]string(nil)".to_owned(),
        Some(all) => {
            let entries = words(all, |(key, value)| format!("{key:?}:{value:?}"));
            format!("map[string]string{{{entries}}}")
        }
    }
}

/// `metav1.LabelSelector`.
pub(crate) fn label_selector(selector: &LabelSelector) -> String {
    const REQUIREMENT: &str = "v1.LabelSelectorRequirement";
    let requirement = |one: &LabelSelectorRequirement| {
        let values = list(one.values.as_deref());
        format!("{REQUIREMENT}{{Key:{:?}, Operator:{:?}, Values:{values}}}", one.key, one.operator)
    };
    let expressions = match selector.match_expressions.as_deref() {
        None => format!("[]{REQUIREMENT}(nil)"),
        Some(all) => format!("[]{REQUIREMENT}{{{}}}", words(all, requirement)),
    };
    let labels = map(selector.match_labels.as_ref());
    format!("v1.LabelSelector{{MatchLabels:{labels}, MatchExpressions:{expressions}}}")
}

/// `intstr.IntOrString`; the number nought if there is none.
pub(crate) fn int_or_string(value: Option<&IntOrString>) -> String {
    let (kind, number, text) = match value {
        None => (0, 0, ""),
        Some(IntOrString::Int(number)) => (0, *number, ""),
        Some(IntOrString::String(text)) => (1, 0, text.as_str()),
    };
    format!("intstr.IntOrString{{Type:{kind}, IntVal:{number}, StrVal:{text:?}}}")
}

/// `core.ServicePort` of which nothing else is said.
pub(crate) fn service_port(port: i32, protocol: &str) -> String {
    let target = int_or_string(None);
    format!(
        "core.ServicePort{{Name:\"\", Protocol:{protocol:?}, AppProtocol:(*string)(nil), \
         Port:{port}, TargetPort:{target}, NodePort:0}}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_printed_as_go_does() {
        assert_eq!(list(None), "[]string(nil)");
        let some = vec!["a".to_owned(), "b\"c".to_owned()];
        assert_eq!(list(Some(&some)), r#"[]string{"a", "b\"c"}"#);
        let one = BTreeMap::from([("app".to_owned(), "x".to_owned())]);
        let selector = LabelSelector { match_labels: Some(one), match_expressions: None };
        assert_eq!(
            label_selector(&selector),
            "v1.LabelSelector{MatchLabels:map[string]string{\"app\":\"x\"}, \
             MatchExpressions:[]v1.LabelSelectorRequirement(nil)}"
        );
        let tier = LabelSelectorRequirement {
            key: "tier".to_owned(),
            operator: "In".to_owned(),
            values: Some(vec!["a".to_owned()]),
        };
        let selector = LabelSelector { match_labels: None, match_expressions: Some(vec![tier]) };
        let expected = [
            "v1.LabelSelector{MatchLabels:map[string]string(nil), MatchExpressions:",
            "[]v1.LabelSelectorRequirement{v1.LabelSelectorRequirement{Key:\"tier\", ",
            "Operator:\"In\", Values:[]string{\"a\"}}}}",
        ]
        .concat();
        assert_eq!(label_selector(&selector), expected);
        let percent = IntOrString::String("5%".to_owned());
        let printed = r#"intstr.IntOrString{Type:1, IntVal:0, StrVal:"5%"}"#;
        assert_eq!(int_or_string(Some(&percent)), printed);
    }
}
