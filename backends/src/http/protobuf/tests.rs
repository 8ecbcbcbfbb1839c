//! Messages as client-go writes them, put together here field by field.

use super::*;
use proptest::prelude::*;

/// A field of bytes.
fn bytes(number: u32, value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    let mut field = Vec::new();
    prost::encoding::encode_key(number, WireType::LengthDelimited, &mut field);
    prost::encoding::encode_varint(value.len() as u64, &mut field);
    field.extend(value);
    field
}

fn number(number: u32, value: i64) -> Vec<u8> {
    let mut field = Vec::new();
    prost::encoding::encode_key(number, WireType::Varint, &mut field);
    prost::encoding::encode_varint(value.cast_unsigned(), &mut field);
    field
}

fn body(api_version: &str, kind: &str, object: &[u8]) -> Vec<u8> {
    let meta = [bytes(1, api_version), bytes(2, kind)].concat();
    [MAGIC.to_vec(), bytes(1, meta), bytes(2, object), bytes(3, ""), bytes(4, "")].concat()
}

fn pair(key: &str, value: impl AsRef<[u8]>) -> Vec<u8> {
    [bytes(1, key), bytes(2, value)].concat()
}

#[test]
fn a_map_of_bytes_and_one_of_texts() {
    let meta = [bytes(1, "settings"), bytes(8, ""), bytes(11, pair("app", "web"))].concat();
    let data = [bytes(2, pair("a", "1")), bytes(2, pair("empty", "")), bytes(3, pair("b", [255]))];
    let object = [bytes(1, meta), data.concat(), number(4, 0)].concat();
    let expected = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "immutable": false,
        "metadata": {"name": "settings", "labels": {"app": "web"}},
        "data": {"a": "1", "empty": ""}, "binaryData": {"b": "/w=="},
    });
    assert_eq!(read(&body("v1", "ConfigMap", &object)), Ok(expected));
}

/// A Deployment whose pointers say zero and whose other fields are zero because Go writes them.
#[test]
fn a_zero_counts_where_it_was_said() {
    let probe = [bytes(1, bytes(2, [bytes(2, number(2, 80)), bytes(4, "")].concat()))].concat();
    let probe = [probe, number(2, 0), number(7, 0)].concat();
    let request = bytes(2, pair("cpu", bytes(1, "250m")));
    let port = [bytes(1, ""), number(2, 0), number(3, 80)].concat();
    let container =
        [bytes(1, "c"), bytes(2, "web:1"), bytes(6, port), bytes(8, request), bytes(10, probe)];
    let volume = [bytes(1, "v"), bytes(2, bytes(2, bytes(1, "")))].concat();
    let pod = [bytes(1, volume), bytes(2, container.concat()), number(4, 0), bytes(3, "")].concat();
    let most = [number(1, 1), number(2, 0), bytes(3, "25%")].concat();
    let none = [number(1, 0), number(2, 0), bytes(3, "")].concat();
    let strategy = [bytes(1, ""), bytes(2, [bytes(1, most), bytes(2, none)].concat())].concat();
    let spec = [number(1, 0), bytes(3, bytes(2, pod)), bytes(4, strategy), number(5, 0)].concat();
    let created = [number(1, 1_700_000_000), number(2, 0)].concat();
    let meta = [bytes(1, "web"), bytes(3, ""), number(7, 0), bytes(8, created)].concat();
    let object = [bytes(1, meta), bytes(2, spec), bytes(99, "of a later release")].concat();
    let read = read(&body("apps/v1", "Deployment", &object)).expect("a Deployment");
    let expected = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "creationTimestamp": "2023-11-14T22:13:20Z"},
        "spec": {
            "replicas": 0,
            "strategy": {"rollingUpdate": {"maxUnavailable": "25%", "maxSurge": 0}},
            "template": {"spec": {
                "terminationGracePeriodSeconds": 0,
                "volumes": [{"name": "v", "emptyDir": {}}],
                "containers": [{
                    "name": "c", "image": "web:1", "ports": [{"containerPort": 80}],
                    "resources": {"requests": {"cpu": "250m"}},
                    "livenessProbe": {"httpGet": {"port": 80}, "terminationGracePeriodSeconds": 0},
                }],
            }},
        },
    });
    assert_eq!(read, expected);
}

#[test]
fn what_is_broken_is_said() {
    for (bytes, word) in [
        (b"{}".to_vec(), "does not begin"),
        (MAGIC.to_vec(), "no message of the API"),
        (body("v1", "Nothing", b""), "Nothing"),
        (body("v1", "Pod", &bytes(1, [9])), "metadata: no protobuf"),
        (body("v1", "Pod", &[0x0a, 200, 1]), "field 1 is 200 bytes long, and 0 follow"),
        (body("v1", "Pod", &number(1, 7)), "metadata: 7 where bytes belong"),
        (body("v1", "Pod", &bytes(1, bytes(1, [255]))), "metadata: name: no UTF-8"),
        (body("v1", "Pod", &bytes(1, bytes(8, number(1, i64::MAX)))), "no time"),
    ] {
        let why = read(&bytes).expect_err(word);
        assert!(why.contains(word), "{why}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        object in prop::collection::vec(prop_oneof![0..=10_u8, any::<u8>()], 0..200),
        kind in prop::sample::select(vec!["Pod", "Service", "Node", "ConfigMap"]),
    ) {
        let _ = read(&body("v1", kind, &object));
        let _ = read(&[MAGIC, &object[..]].concat());
    }
}
