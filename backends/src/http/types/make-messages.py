#!/usr/bin/env python3
"""Makes messages.txt anew: what the Go types of the Kubernetes API say of themselves.

    git clone --bare https://github.com/kubernetes/api api
    git clone --bare https://github.com/kubernetes/apimachinery apimachinery
    git clone --bare https://github.com/kubernetes/apiextensions-apiserver apiextensions
    make-messages.py api apimachinery apiextensions release-1.33 > messages.txt

The release is that of Kubernetes whose API is served (`GIT_VERSION` in handle.rs). Read are the
tags of fields (protobuf, json, patchStrategy, patchMergeKey) and the markers of openapi-gen
(+listType, +listMapKey, +mapType, +structType, +default) of whatever objects consist of.
A newer GROUP (see below) is added by hand.
"""

import json
import re
import subprocess
import sys

GROUPS = """admissionregistration/v1 apps/v1 authentication/v1 authorization/v1 autoscaling/v1
    autoscaling/v2 batch/v1 certificates/v1 coordination/v1 core/v1 discovery/v1 events/v1
    flowcontrol/v1 networking/v1 node/v1 policy/v1 rbac/v1 scheduling/v1 storage/v1""".split()
# Not in k8s.io/api.
EXTENSIONS = "apiextensions/v1"
# Bodies that have no metadata, and one that older clients send.
MORE_ROOTS = [("meta/v1", "DeleteOptions"), ("policy/v1beta1", "Eviction")]
# The packages that types.go files import, as they call them. None: all are strings there.
IMPORTS = {"metav1": "meta/v1", "v1": "core/v1", "corev1": "core/v1", "apiv1": "core/v1",
           "rbacv1": "rbac/v1", "types": None}
# What has an encoding of its own.
SPECIAL = {"Time", "MicroTime", "Quantity", "IntOrString", "RawExtension", "FieldsV1"}
# What Go calls what is in the table, where it has no group before it.
GO = {"string": "string", "bool": "bool", "int": "int32", "bytes": "[]uint8", "strings": "[]string",
      "Time": "v1.Time", "MicroTime": "v1.MicroTime", "Quantity": "resource.Quantity",
      "IntOrString": "intstr.IntOrString"}
# What is one thing or another in JSON, and numbers with fractions: nobody sends them in protobuf.
BASIC = {"string": "string", "bool": "bool", "int32": "int", "int64": "int", "float64": "int",
         "JSON": "RawExtension", "JSONSchemaPropsOrArray": "RawExtension",
         "JSONSchemaPropsOrBool": "RawExtension",
         "JSONSchemaPropsOrStringArray": "RawExtension"}

HEAD = """\
# The messages of the Kubernetes API, as types.go of k8s.io/api, k8s.io/apimachinery and
# k8s.io/apiextensions-apiserver have them ({release}; made by make-messages.py). First the groups:
# how names of messages begin, and how the group is called. Then messages: a name, and "atomic" if
# it has one owner as a whole; its fields, each with its number, its name in JSON, its type, and
# what else is said of it.
# "*": its fields are the message's own. "[]" many, "{{}}" a map by names, "?" a pointer: a zero is
# said. "strings" is a message of many strings.
# ":": what Go calls the type, where that does not follow.
# "merge", "merge=KEY", "retainKeys", "merge=KEY,retainKeys": patchStrategy and patchMergeKey.
# "set", "map=KEY,KEY", "atomic", "granular": +listType, +listMapKey, +mapType, +structType.
# "always": Go writes it even if it is empty. Structs are not said to be: all of them are written.
# "default=JSON": what a field that is such a key is when it is not said."""


def show(repository, release, path):
    command = ["git", "-C", repository, "show", f"{release}:{path}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


MARKER = re.compile(r"\s*//\s*\+(listType|listMapKey|mapType|structType|default)=(.*)")
FIELD = re.compile(r"\s*(?:(\w+)\s+)?([\w.*\[\]]+)\s+`(.*)`")


class Field:
    def __init__(self, found, comments):
        self.type, tags = found[2], dict(re.findall(r'(\w+):"([^"]*)"', found[3]))
        self.wire, self.number = None, None
        if tags.get("protobuf", "-") != "-":
            self.wire, number = tags["protobuf"].split(",")[:2]
            self.number = int(number)
        name, *options = tags.get("json", "").split(",")
        self.name = name or "*"
        self.omitted = "omitempty" in options
        self.strategy = tags.get("patchStrategy", "").split(",")
        self.merge_key = tags.get("patchMergeKey")
        self.markers = markers(comments)


def markers(comments):
    """+name=value of a block of comments, as lists."""
    found = {}
    for comment in comments:
        marker = MARKER.match(comment)
        if marker:
            found.setdefault(marker[1], []).append(marker[2].strip())
    return found


class Source:
    """One types.go."""

    def __init__(self, text):
        self.structs, self.aliases, self.markers = {}, {}, {}
        struct, comments = None, []
        for line in text.split("\n"):
            opened = re.match(r"type (\w+) struct ?\{", line)
            alias = re.match(r"type (\w+) ([\w.*\[\]]+)\s*(//.*)?$", line)
            if opened:
                struct = opened[1]
                self.structs[struct], self.markers[struct] = [], markers(comments)
            elif alias:
                self.aliases[alias[1]] = alias[2]
            elif line.startswith("}"):
                struct = None
            elif struct and FIELD.match(line):
                field = Field(FIELD.match(line), comments)
                if field.number is not None:
                    self.structs[struct].append(field)
            if line.strip().startswith("//"):
                comments.append(line)
            else:
                comments = []


class Types:
    def __init__(self, api, machinery, extensions, release):
        self.sources, self.groups = {}, {}
        for group in GROUPS + ["policy/v1beta1"]:
            self.sources[group] = Source(show(api, release, f"{group}/types.go"))
            name = re.search(r"\+groupName=(\S*)", show(api, release, f"{group}/doc.go"))
            self.groups[group.split("/")[0]] = name[1] if name else group.split("/")[0]
        meta = show(machinery, release, "pkg/apis/meta/v1/types.go")
        self.sources["meta/v1"] = Source(meta)
        files = ["types.go", "types_jsonschema.go"]
        texts = [show(extensions, release, f"pkg/apis/{EXTENSIONS}/{file}") for file in files]
        self.sources[EXTENSIONS] = Source("\n".join(texts))
        self.groups[EXTENSIONS.split("/")[0]] = "apiextensions.k8s.io"

    def named(self, group, name):
        """Where a name is from: the group (None: all are strings there), and the name there."""
        package, dot, rest = name.partition(".")
        if not dot:
            return group, name
        if rest in SPECIAL:
            return group, rest
        return IMPORTS[package], rest

    def resolve(self, group, type_):
        """Through names of lists, maps and simple types."""
        while re.fullmatch(r"[\w.]+", type_) and type_ not in BASIC and type_ not in SPECIAL:
            group, type_ = self.named(group, type_)
            if group is None:
                return group, "string"
            alias = self.sources[group].aliases.get(type_)
            if alias is None:
                break
            type_ = alias
        return group, type_

    def spelled(self, group, field):
        """A field's type as the table has it, and the message in it."""
        pointer = field.type.startswith("*")
        group, type_ = self.resolve(group, field.type.lstrip("*"))
        many = ""
        mapped = re.match(r"map\[[\w.]+\](.*)", type_)
        if type_ == "[]byte":
            return ("bytes?" if pointer else "bytes"), None
        if mapped:
            many, type_ = "{}", mapped[1]
        elif type_.startswith("[]"):
            many, type_ = "[]", type_[2:]
        group, type_ = self.resolve(group, type_.lstrip("*"))
        message = None
        if type_ == "[]byte":
            text = "bytes"
        elif type_.startswith("[]"):
            text = "strings"
        elif type_ in SPECIAL or type_ in BASIC:
            text = BASIC.get(type_, type_)
        else:
            assert type_ in self.sources[group].structs, f"{group}: what is {type_}?"
            message = (group, type_)
            text = f"{group}.{type_}"
        return many + text + ("?" if pointer else ""), message

    def go(self, group, type_):
        """What Go's reflection calls a type (`reflect.Type.String`)."""
        if type_.startswith("*"):
            return "*" + self.go(group, type_[1:])
        if type_.startswith("[]"):
            return "[]" + self.go(group, type_[2:])
        mapped = re.match(r"map\[([\w.]+)\](.*)", type_)
        if mapped:
            return f"map[{self.go(group, mapped[1])}]{self.go(group, mapped[2])}"
        package, dot, name = type_.rpartition(".")
        if not dot:
            simple = {"byte": "uint8"}.get(type_, type_)
            return simple if type_ in BASIC or type_ == "byte" else f"{group.split('/')[1]}.{name}"
        home = IMPORTS.get(package)
        return f"{home.split('/')[1]}.{name}" if home else type_

    def reached(self):
        """All messages that bodies consist of, and the fields by which lists know elements."""
        todo = list(MORE_ROOTS)
        for group in [*GROUPS, EXTENSIONS]:
            for name, fields in self.sources[group].structs.items():
                if any(f.name == "metadata" and f.type.endswith("ObjectMeta") for f in fields):
                    todo.append((group, name))
        seen, keys = set(), set()
        while todo:
            key = todo.pop()
            if key in seen:
                continue
            seen.add(key)
            for field in self.sources[key[0]].structs[key[1]]:
                _, message = self.spelled(key[0], field)
                if message:
                    todo.append(message)
                    keys |= {(message, key) for key in field.markers.get("listMapKey", [])}
        return sorted(seen), keys


def follows(type_):
    """What Go calls a type if nothing is said of it."""
    type_ = type_.rstrip("?")
    for mark, before in ("[]", "[]"), ("{}", "map[string]"):
        if type_.startswith(mark):
            return before + follows(type_[len(mark):])
    return GO.get(type_) or type_.split("/")[-1]


def said(field, is_key, type_, is_struct):
    """The words behind a field's type."""
    words = []
    merge = [f"merge={field.merge_key}" if word == "merge" and field.merge_key else word
             for word in field.strategy if word]
    if merge:
        words.append(",".join(merge))
    kind = field.markers.get("listType", [None])[-1]
    if kind == "map":
        words.append("map=" + ",".join(field.markers["listMapKey"]))
    elif kind:
        words.append(kind)
    for marker in ("mapType", "structType"):
        words += field.markers.get(marker, [])
    struct = field.name == "*" or not field.type.startswith("*") and is_struct
    if not field.omitted and not struct:
        words.append("always")
    if is_key:
        default = field.markers.get("default", [None])[-1]
        # openapi-gen: what Go always writes has its zero for a default.
        if default is None and not field.omitted and not field.type.startswith("*"):
            default = {"string": '""', "int": "0", "bool": "false"}.get(type_)
        if default is not None:
            words.append(f"default={json.dumps(json.loads(default))}")
    return words


def main():
    api, machinery, extensions, release = sys.argv[1:]
    types = Types(api, machinery, extensions, release)
    print(HEAD.format(release=release))
    for short, group in sorted(types.groups.items()):
        print(f"@ {short} {group}".rstrip())
    messages, keys = types.reached()
    for group, name in messages:
        source = types.sources[group]
        print(" ".join([f"{group}.{name}"] + source.markers[name].get("structType", [])))
        for field in sorted(source.structs[name], key=lambda field: field.number):
            type_, message = types.spelled(group, field)
            is_struct = message is not None and not type_.startswith(("[]", "{}"))
            words = said(field, ((group, name), field.name) in keys, type_, is_struct)
            go = types.go(group, field.type.lstrip("*"))
            other = "" if field.name == "*" or go == follows(type_) else f":{go}"
            print(" ".join([f" {field.number} {field.name} {type_}{other}"] + words))


if __name__ == "__main__":
    main()
