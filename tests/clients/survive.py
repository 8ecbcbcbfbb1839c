"""The official Python client beside a server that is killed now and then: one thread writes, one
follows as the client's documentation has it, a list and then a watch from there. What was followed is
compared with what is known to have been written. Takes the kubeconfig; goes on until its standard
input ends; says what it found, or fails.

Nothing here knows which server it is: it holds for upstream's as well."""

import random
import sys
import threading
import time

import urllib3
from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException

NAMESPACE = "default"
LABELS = {"by": "python"}
SELECTOR = "by=python"
END = "the-end"
OBJECTS = 4
# What a request may end with when there is no server.
LOST = (urllib3.exceptions.HTTPError, OSError)


def at(item):
    return item.metadata.uid, int(item.metadata.resource_version)


class Log:
    """What was learned, in that order: ("there", name, uid, version), ("gone", name, uid), and of who
    follows ("listed", {uid: version}), ("ADDED" or "MODIFIED" or "DELETED", name, uid, version)."""

    def __init__(self):
        self.entries = []
        self.lock = threading.Lock()

    def note(self, *entry):
        with self.lock:
            self.entries.append(entry)


class Writer:
    def __init__(self, api, log):
        self.core, self.log = client.CoreV1Api(api), log
        self.there, self.made, self.dice = {}, 0, random.Random(1)

    def run(self, over):
        while not over.is_set():
            self.change_something()
            time.sleep(0.005)
        while END not in self.there:
            self.attempt(END, lambda: self.core.create_namespaced_config_map(
                NAMESPACE, self.body(END)))

    def body(self, name):
        meta = client.V1ObjectMeta(name=name, labels=LABELS)
        return client.V1ConfigMap(metadata=meta, data={"n": str(self.dice.random())})

    def change_something(self):
        if len(self.there) < OBJECTS:
            self.made += 1
            name = f"p-{self.made}"
            return self.attempt(name, lambda: self.core.create_namespaced_config_map(
                NAMESPACE, self.body(name)))
        name = self.dice.choice(sorted(self.there))
        how = self.dice.randrange(4)
        if how == 0:
            return self.attempt(name, lambda: self.core.delete_namespaced_config_map(
                name, NAMESPACE))
        if how == 1:
            return self.attempt(name, lambda: self.core.replace_namespaced_config_map(
                name, NAMESPACE, self.body(name)))
        data = {"data": {"n": str(self.dice.random())}}
        return self.attempt(name, lambda: self.core.patch_namespaced_config_map(
            name, NAMESPACE, data))

    def attempt(self, name, write):
        """A write and what is known after it. Without an answer, what is there when a server answers
        again: with its process ended whatever that had under way."""
        try:
            answer = write()
            self.known(name, answer if isinstance(answer, client.V1ConfigMap) else None)
        except ApiException as error:
            assert error.status == 429 or error.status >= 500, error
            if error.status != 429:
                self.look(name)
        except LOST:
            self.look(name)

    def look(self, name):
        while True:
            try:
                return self.known(name, self.core.read_namespaced_config_map(name, NAMESPACE))
            except ApiException as error:
                if error.status == 404:
                    return self.known(name, None)
            except LOST:
                pass
            time.sleep(0.02)

    def known(self, name, found):
        old = self.there.pop(name, None)
        if found is not None:
            self.there[name] = at(found)
            if old != at(found):
                self.log.note("there", name, *at(found))
        elif old is not None:
            self.log.note("gone", name, old[0])


def follow(api, log):
    """Until the last object is there; what is held then, by name."""
    core, version, held = client.CoreV1Api(api), None, {}
    while END not in held:
        try:
            if version is None:
                begun = len(log.entries)
                listed = core.list_namespaced_config_map(NAMESPACE, label_selector=SELECTOR)
                held = {item.metadata.name: at(item) for item in listed.items}
                log.note("listed", begun, dict(held.values()))
                version = listed.metadata.resource_version
                continue
            stream = watch.Watch().stream(
                core.list_namespaced_config_map, NAMESPACE, label_selector=SELECTOR,
                resource_version=version, timeout_seconds=30)
            for event in stream:
                item, kind = event["object"], event["type"]
                name, version = item.metadata.name, item.metadata.resource_version
                log.note(kind, name, *at(item))
                if kind == "DELETED":
                    assert held.pop(name)[0] == item.metadata.uid, event
                else:
                    held[name] = at(item)
                if name == END:
                    break
        except ApiException as error:
            # Too old: from before all that the server remembers.
            assert error.status == 410 or error.status >= 500, error
            version = None if error.status == 410 else version
        except LOST:
            pass
        time.sleep(0.02)
    return held


def judge(entries):
    """Every state is shown once and in order, but for what a new list passed over."""
    known = {entry[2:4] for entry in entries if entry[0] == "there"}
    gone = {entry[2] for entry in entries if entry[0] == "gone"}
    shown, streamed, lists, newest = set(), [], [], 0
    for index, entry in enumerate(entries):
        if entry[0] == "listed":
            _, begun, items = entry
            lists.append((index, items))
            shown |= set(items.items())
            newest = max([newest, *items.values()])
            fresh(items, entries[:begun])
        elif entry[0] not in ("there", "gone"):
            kind, _, uid, version = entry
            assert version > newest, f"{entry} is told after version {newest}"
            newest = version
            streamed.append((index, version))
            if kind != "DELETED":
                shown.add((uid, version))
    assert shown <= known, f"shown, and never so: {shown - known}"
    for index, entry in enumerate(entries):
        if entry[0] != "there" or entry[2:4] in shown:
            continue
        _, _, uid, version = entry
        later = next((at for at, told in streamed if told > version), len(entries))
        whole, items = [found for found in lists if found[0] < later][-1]
        passed = items[uid] > version if uid in items else index < whole and uid in gone
        assert passed, f"{entry} is never told"
    return len(known) + len(gone), len(streamed), len(lists)


def fresh(items, before):
    """A list is of no older state than what was known when it was asked for."""
    state = {}
    for entry in before:
        if entry[0] == "there":
            state[entry[2]] = entry[3]
        elif entry[0] == "gone":
            state[entry[2]] = None
    for uid, version in items.items():
        then = state.get(uid, 0)
        assert then is not None, f"{uid} is listed, and was gone"
        assert version >= then, f"{uid} is listed at {version}, and was at {then}"


def main(kubeconfig):
    log, over, held = Log(), threading.Event(), {}
    reader = threading.Thread(
        target=lambda: held.update(follow(config.new_client_from_config(kubeconfig), log)))
    writer = Writer(config.new_client_from_config(kubeconfig), log)
    writing = threading.Thread(target=writer.run, args=[over])
    for thread in (reader, writing):
        thread.daemon = True
        thread.start()
    while not writer.there:
        time.sleep(0.01)
    print("writes", flush=True)
    sys.stdin.read()
    over.set()
    for thread in (writing, reader):
        thread.join(60)
        assert not thread.is_alive(), "it does not end"
    writes, events, lists = judge(log.entries)
    assert held == writer.there, (held, writer.there)
    print(f"held: {writes} writes known, {events} changes told one by one, {lists} lists")


main(sys.argv[1])
