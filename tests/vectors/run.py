#!/usr/bin/env python3
"""Runs vectors through docs/reader.py: see README.md.

    run.py [--cases FOLDER] [NAME...]
"""
import io
import json
import os
import shutil
import sys
import tempfile
from contextlib import redirect_stderr

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "docs"))
import reader  # noqa: E402

# Longer contents aren't read: a few stored bytes can stand for any number.
READ_MAX = 16 << 20
VERDICTS = {reader.Damaged: "damaged", reader.Unsupported: "unsupported", reader.Missing: "missing",
            reader.Foreign: "foreign", reader.Unsigned: "unsigned", reader.WrongSecret: "wrong secret"}


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def secret(name):
    (kind, value), = load(os.path.join(HERE, "secrets.json"))[name].items()
    return (kind, bytes.fromhex(value) if kind == "key" else value.encode())


def to_bytes(value):
    if isinstance(value, str):
        return bytes.fromhex(value)
    return b"".join(to_bytes(part) if isinstance(part, str) else bytes.fromhex(part[0]) * part[1] for part in value)


def change(folder, changes):
    for changed in changes:
        path = os.path.join(folder, changed["object"])
        if changed["bytes"] is None:
            os.unlink(path)
            continue
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(to_bytes(changed["bytes"]))


def walk(repository, snapshot, found):
    entries, problems = list(repository.tree(snapshot)), {}
    for key, entry in entries:
        try:
            reader.known(not entry.kind.endswith("?"), entry.kind)
            if entry.kind in ("file", "symlink") and entry.size <= READ_MAX:
                for _ in repository.content(entry.content):
                    pass
            repository.metadata(entry)
        except reader.Unusable as error:
            problems[os.fsdecode(key.replace(b"\0", b"/"))] = VERDICTS[type(error)]
    found.update(entries=len(entries), problems=problems)
    return next(iter(problems.values()), "fine")


def describe(folder, prefix=""):
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if os.path.islink(path):
            yield f"{prefix}{name} -> {os.readlink(path)}"
        elif os.path.isdir(path):
            yield f"{prefix}{name}/"
            yield from describe(path, f"{prefix}{name}/")
        else:
            with open(path, encoding="utf-8") as file:
                yield f"{prefix}{name}: {file.read()}"


def restore(repository, snapshot, found):
    with tempfile.TemporaryDirectory() as folder:
        failures = reader.extract(repository, snapshot, os.path.join(folder, "restored"))
        restored = list(describe(os.path.join(folder, "restored")))
    found.update(refused=sorted(os.fsdecode(key.replace(b"\0", b"/")) for key in failures), restored=restored)
    return "in part" if failures else "fine"


def carry_out(repository, vector, found):
    do = vector["do"]
    if do == "list":
        tags = repository.names("commits", reader.ID)
        listed = [s for tag in tags for s in repository.snapshots(tag)]
        listed.sort(key=lambda s: (s.series, s.number))
        found["snapshots"] = [f"{s.series}#{s.number}" for s in listed]
    elif do == "object":
        repository.verify(vector["object"])
    elif do != "open":
        snapshot = repository.find(vector["series"], vector["which"])
        found["number"] = snapshot.number
        if do != "find":
            return {"walk": walk, "restore": restore}[do](repository, snapshot, found)
    return "fine"


def outcome(folder, vector):
    found = {}
    try:
        repository = reader.Repository(folder, secret(vector["secret"]))
        verdict = carry_out(repository, vector, found)
        found["aside"] = sorted(repository.aside)
        return "put aside" if verdict == "fine" and repository.aside else verdict, found, ""
    except tuple(VERDICTS) as error:
        return VERDICTS[type(error)], found, str(error)


def run(cases, name):
    """What differs from what the vector expects, or None."""
    vector = load(os.path.join(cases, name))
    with tempfile.TemporaryDirectory() as folder, redirect_stderr(io.StringIO()):
        copy = os.path.join(folder, "repository")
        shutil.copytree(os.path.join(HERE, "good"), copy)
        change(copy, vector["changes"])
        verdict, found, why = outcome(copy, vector)
    same = all(found.get(what) == value for what, value in vector["expect"].items())
    if verdict == vector["verdict"] and same:
        return None
    return f"{name[:-5]}: {vector['verdict']} {vector['expect']}, not {verdict} {found} ({why})"


def main(arguments):
    cases = os.path.join(HERE, "cases")
    if arguments[:1] == ["--cases"]:
        cases, arguments = arguments[1], arguments[2:]
    names = [f"{name}.json" for name in arguments] or sorted(os.listdir(cases))
    wrong = [differs for differs in (run(cases, name) for name in names) if differs]
    for differs in wrong:
        print(differs)
    print(f"{len(names)} vectors")
    return 1 if wrong or not names else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
