//! Snapshot records and how they are found; lists, collections and registrations.

use serde_json::json;

use super::{Cases, Changes, aside, find, list, nothing, number, object};
use crate::forge::{
    COLLECTION, Keys, LIST, REGISTRATION, REGISTRATION_END, SNAPSHOT, Value, hash, pad, retrailed, trailed,
};
use crate::good::{CREATED, HOUR, List, Snapshot, commit, registration, writer};

impl Cases {
    pub(super) fn add_records(&mut self) {
        self.add_finding();
        self.add_snapshots();
        self.add_values();
        self.add_names();
        self.add_lists();
        self.add_collections();
        self.add_registrations();
    }

    fn add_finding(&mut self) {
        let all = json!({"snapshots": ["fed#1", "notes#1", "notes#2", "notes#3", "photos#1", "photos#4", "photos#5"]});
        self.add(("list: all that counts", "R31"), Changes::none(), list(), "fine", all);
        let at = |hours: i64, more: i64| format!("@{}", CREATED + hours * HOUR + more);
        for (what, series, which, found) in [
            ("find: the latest", "photos", "latest".to_owned(), Some(5)),
            ("find: what gives another back isn't the latest", "notes", "latest".to_owned(), Some(2)),
            ("find: by number", "photos", "1".to_owned(), Some(1)),
            ("find: at a time", "photos", at(5, 0), Some(5)),
            ("find: just before a time", "photos", at(5, -1), Some(4)),
            ("find: at the time of a tombstone and of what was forgotten", "photos", at(3, 0), Some(1)),
            ("find: a time after all", "notes", at(1000, 0), Some(2)),
            ("find: a time before all", "notes", at(10, -1), None),
            ("find: a number that was forgotten", "photos", "2".to_owned(), None),
            ("find: the number of a tombstone", "photos", "3".to_owned(), None),
            ("find: a number that was never given", "photos", "6".to_owned(), None),
            ("find: a series that there isn't", "nobody", "latest".to_owned(), None),
        ] {
            let verdict = if found.is_some() { "fine" } else { "missing" };
            let expect = found.map_or(nothing(), number);
            self.add((what, "R28"), Changes::none(), find(series, &which), verdict, expect);
        }
        let keys = self.good.keys.clone();
        let gone = Changes::remove(commit(&keys, "photos", 5));
        self.add(("find: the newest record is missing", "R29"), gone, find("photos", "latest"), "fine", number(4));
        let gone = Changes::remove(commit(&keys, "notes", 2));
        self.add(
            ("find: the record of the latest is missing", "R29"),
            gone,
            find("notes", "latest"),
            "fine",
            number(1),
        );
    }

    /// The next record of the series `photos`.
    fn six(&self) -> Snapshot {
        let predecessor = Some(hash(&self.good.objects[&commit(&self.good.keys, "photos", 5)]));
        let root = self.good.newest["photos"].root;
        Snapshot { predecessor, ..Snapshot::new("photos", 6, 6, root, self.good.newest["photos"].entries) }
    }

    /// Record 6, found by its number, and as the latest; `latest` is what that finds.
    fn record(&mut self, what: &str, rule: &str, bytes: Vec<u8>, verdict: &str) {
        let name = commit(&self.good.keys, "photos", 6);
        let changes = Changes::put(&name, bytes);
        let found = if verdict == "fine" { number(6) } else { nothing() };
        self.add((what, rule), changes.clone(), find("photos", "6"), verdict, found);
        if matches!(rule, "R9" | "R5" | "R28" | "R8") && verdict != "fine" {
            let what = format!("{what}, as the latest");
            self.add((&what, rule), changes, find("photos", "latest"), "put aside", aside(5, &[&name]));
        }
    }

    fn add_snapshots(&mut self) {
        let (keys, six) = (self.good.keys.under(1), self.six());
        let (sound, name) = (six.object(&keys), six.name(&keys));
        self.record("record: one more", "R28", sound.clone(), "fine");
        let mut flipped = sound.clone();
        flipped[100] ^= 1;
        self.record("record: a bit has flipped", "R9", flipped, "damaged");
        let mut flipped = sound.clone();
        flipped[8] ^= 2;
        self.record("record: a bit of the version has flipped", "R9", flipped, "damaged");
        self.record("record: cut short", "R9", sound[..60].to_vec(), "damaged");
        self.record("record: empty", "R9", Vec::new(), "damaged");
        self.record("record: longer than 16 MiB", "R46", vec![0; (16 << 20) + 1], "damaged");
        let changed = |at: usize, to: u8| retrailed(sound.clone(), |bytes| bytes[at] = to);
        self.record("record: another version", "R9", changed(8, 2), "unsupported");
        self.record("record: an unknown kind", "R9", changed(9, 11), "unsupported");
        self.record("record: the kind of a registration", "R9", changed(9, 5), "damaged");
        self.record("record: other letters in front", "R9", changed(7, b'P'), "damaged");
        self.record("record: an unknown generation", "R8", changed(10, 9), "unsupported");
        self.record("record: the salt of another", "R9", changed(20, 1), "damaged");
        let odd = Snapshot { extensions: vec![(7, "new")], ..six.clone() };
        self.record("record: an unknown odd extension", "R5", odd.object(&keys), "fine");
        let even = Snapshot { extensions: vec![(1, "new"), (8, "new")], ..six.clone() };
        self.record("record: an unknown even extension", "R5", even.object(&keys), "unsupported");

        let value = six.value().0;
        let plain = pad(value.clone(), 94);
        let sealed = |plain: &[u8]| keys.record_as(SNAPSHOT, &name, plain);
        let bare = [value.clone(), vec![]].concat();
        assert!(plain.len() > bare.len() + 1, "there is padding to change");
        self.record("record: no padding", "R6", sealed(&bare), "damaged");
        let more = [plain.clone(), vec![0]].concat();
        self.record("record: a zero too many", "R6", sealed(&more), "damaged");
        let mut one = plain.clone();
        *one.last_mut().unwrap() = 1;
        self.record("record: padding that isn't zero", "R6", sealed(&one), "damaged");
        let elsewhere = keys.record_as(SNAPSHOT, &commit(&keys, "photos", 7), &plain);
        self.record("record: sealed under another name", "R9", elsewhere, "damaged");
        let sealer = keys.sealer(SNAPSHOT, b"another part");
        let part = trailed([sealer.header(), sealer.seal(0, 1, &name, &plain)].concat());
        self.record("record: sealed as another part", "R9", part, "damaged");
        let second = trailed([sealer.header(), sealer.seal(1, 0, &name, &plain)].concat());
        self.record("record: sealed under another number", "R9", second, "damaged");

        let other = Snapshot { number: 7, ..six.clone() }.value();
        self.record("record: another number than its name's", "R28", keys.record(SNAPSHOT, &name, &other), "damaged");
        let other = Snapshot { series: "notes".to_owned(), ..six.clone() }.value();
        self.record("record: another series than its name's", "R28", keys.record(SNAPSHOT, &name, &other), "damaged");
        let alone = Snapshot { predecessor: None, ..six.clone() };
        self.record("record: no predecessor", "R28", alone.object(&keys), "damaged");
        let first = Snapshot { predecessor: Some([1; 32]), ..Snapshot::new("new", 1, 60, six.root, 3) };
        let what = ("record: the first, with a predecessor", "R28");
        self.add(what, Changes::put(first.name(&keys), first.object(&keys)), find("new", "1"), "damaged", nothing());

        let wrong = Snapshot { predecessor: Some([1; 32]), ..six.clone() };
        self.record("record: another predecessor, which no reader need see", "R29", wrong.object(&keys), "fine");
        let changes = Changes::put(&name, wrong.object(&keys));
        self.add(("record: another predecessor, for a check", "R29"), changes, object(&name), "damaged", nothing());
        let early = Snapshot { time: CREATED, ..six.clone() };
        let changes = Changes::put(&name, early.object(&keys));
        self.add(
            ("record: earlier than its predecessor, for a check", "R30"),
            changes,
            object(&name),
            "damaged",
            nothing(),
        );
        let grave = Snapshot { root: None, ..six };
        let changes = Changes::put(&name, grave.object(&keys));
        self.add(("record: a tombstone", "R28"), changes, find("photos", "latest"), "fine", number(5));
    }

    /// Values that no writer encodes so.
    fn add_values(&mut self) {
        let (keys, six) = (self.good.keys.under(1), self.six());
        let name = six.name(&keys);
        let sealed = |value: &Value| keys.record(SNAPSHOT, &name, value);
        let front = || Value::new().bytes("photos");
        let times = |value: Value| value.i(six.time).i(six.time).option(six.predecessor, Value::raw);
        let grave = times(front().n(6)).n(0).extensions(&[]);
        self.add(
            ("value: a tombstone", "R3"),
            Changes::put(&name, sealed(&grave)),
            find("photos", "6"),
            "missing",
            nothing(),
        );
        for (what, value) in [
            ("value: a number of two bytes more than it needs", times(front().raw([251, 6, 0])).n(0).extensions(&[])),
            ("value: a number of eight bytes more than it needs", {
                times(front().raw([253, 6, 0, 0, 0, 0, 0, 0, 0])).n(0).extensions(&[])
            }),
            ("value: a number of sixteen bytes", times(front().raw([254]).raw([0; 16])).n(0).extensions(&[])),
            ("value: a number that begins with 255", times(front().raw([255])).n(0).extensions(&[])),
            ("value: an unknown form of body", times(front().n(6)).n(2).extensions(&[])),
            ("value: an option that is 2", front().n(6).i(six.time).i(six.time).n(2).raw([0; 32]).n(0).extensions(&[])),
            ("value: extensions repeated", times(front().n(6)).n(0).extensions(&[(1, ""), (1, "")])),
            ("value: extensions out of order", times(front().n(6)).n(0).extensions(&[(3, ""), (1, "")])),
            ("value: an extension's number beyond 32 bits", times(front().n(6)).n(0).extensions(&[(1 << 32 | 1, "")])),
            ("value: a length that lies", times(front().n(6)).n(0).n(1).n(1).n(1 << 60)),
            ("value: a list that lies", times(front().n(6)).n(0).n(1 << 61)),
        ] {
            self.record(what, "R3", sealed(&value), "damaged");
        }
        let short = times(front().n(6)).n(0).0;
        self.record("value: ends too early", "R3", keys.record_as(SNAPSHOT, &name, &short), "damaged");
        let order = Snapshot { tags: vec![("b", ""), ("a", "")], ..six.clone() };
        self.record("value: labels out of order", "R3", order.object(&keys), "damaged");
        let twice = Snapshot { tags: vec![("a", "1"), ("a", "2")], ..six.clone() };
        self.record("value: a label twice", "R3", twice.object(&keys), "damaged");
        let far = Snapshot { packs: vec![([1; 32], 1 << 32, 100)], ..six.clone() };
        self.record("value: a pack's length beyond 32 bits", "R3", far.object(&keys), "damaged");
        let mut latin = six.value().0;
        let at = latin.windows(6).position(|window| window == b"a host").unwrap();
        latin[at] = 0xe4;
        self.record("value: a string that isn't UTF-8", "R3", sealed(&Value(latin)), "damaged");
    }

    fn add_names(&mut self) {
        let (keys, six) = (self.good.keys.under(1), self.six());
        let all = json!({
            "snapshots": ["fed#1", "notes#1", "notes#2", "notes#3", "photos#1", "photos#4", "photos#5"],
        });
        for (what, series) in [
            ("series: a name with a number sign", "a#b".to_owned()),
            ("series: a name with an at sign", "a@b".to_owned()),
            ("series: a name with a line break", "a\nb".to_owned()),
            ("series: no name", String::new()),
            ("series: a name of 1025 bytes", "s".repeat(1025)),
        ] {
            let first = Snapshot { predecessor: None, ..Snapshot::new(&series, 1, 60, six.root, 3) };
            let name = first.name(&keys);
            let mut expect = all.clone();
            expect["aside"] = json!([name]);
            self.add((what, "R28"), Changes::put(&name, first.object(&keys)), list(), "put aside", expect);
        }
        let (sound, name) = (six.object(&keys), six.name(&keys));
        for (what, other) in [
            ("name: another bucket", name.replace("/000000000000/", "/000000000001/")),
            ("name: a number that isn't padded", name.replace("000000000000006", "6")),
            ("name: number 0", name.replace("000000000000006", "000000000000000")),
            ("name: capital letters", name.replace(&keys.tag("photos"), &keys.tag("photos").to_uppercase())),
            ("name: something behind it", format!("{name}.tmp")),
            ("name: a record one folder up", format!("commits/{}/000000000000006", keys.tag("photos"))),
            ("name: a prefix that isn't known", "drills/000000000000001".to_owned()),
        ] {
            let changes = Changes::put(&other, sound.clone());
            self.add((what, "R1"), changes.clone(), find("photos", "latest"), "fine", number(5));
            self.add((&format!("{what}, by itself"), "R1"), changes, object(&other), "foreign", nothing());
        }
        let last = Snapshot { number: 999_999_999_999_999, ..six.clone() };
        let folder = format!("commits/{}/999999999999", keys.tag("photos"));
        let changes = Changes::put(last.name(&keys), last.object(&keys));
        let expect = aside(5, &[&folder]);
        self.add(("name: a made-up number", "R44"), changes, find("photos", "latest"), "put aside", expect);
        let of = |series: &str, number: u64| {
            let alone = Snapshot { predecessor: Some([1; 32]), time: CREATED + 70 * HOUR, ..six.clone() };
            Snapshot { series: series.to_owned(), number, ..alone }
        };
        let put = |record: &Snapshot| Changes::put(record.name(&keys), record.object(&keys));
        let next = put(&of("photos", 1000));
        let what = ("name: a made-up number in the next thousand", "R44");
        self.add(what, next, find("photos", "latest"), "fine", number(1000));
        let after = put(&of("photos", 2500));
        let what = ("name: a made-up number two thousands on", "R44");
        let folder = format!("commits/{}/000000000002", keys.tag("photos"));
        self.add(what, after.clone(), find("photos", "latest"), "put aside", aside(5, &[&folder]));
        let list = self.good.list(3, 1999, &[(1, 1), (4, 5)], &[]);
        let forgotten = after.and(list.name(&keys), list.object(&keys));
        let what = ("name: thousands that were forgotten lie between", "R44");
        self.add(what, forgotten, find("photos", "latest"), "fine", number(2500));
        let late = put(&of("late", 7001));
        let what = ("name: a series whose first thousands were collected", "R44");
        self.add(what, late, find("late", "latest"), "fine", number(7001));
        let seventh = commit(&keys, "photos", 7);
        let two = Changes::put(&name, b"garbage".to_vec()).and(&seventh, vec![]);
        let what = ("name: garbage under the next two numbers", "R42");
        self.add(what, two, find("photos", "latest"), "put aside", aside(5, &[&name, &seventh]));
        let fourth = commit(&keys, "photos", 4);
        let broken = Changes::put(&fourth, b"garbage".to_vec());
        let what = ("name: garbage in the place of a snapshot, just before a time", "R42");
        let at = format!("@{}", CREATED + 5 * HOUR - 1);
        self.add(what, broken, find("photos", &at), "put aside", aside(1, &[&fourth]));
        let garbage = Changes::put(&name, b"garbage".to_vec());
        let what = ("name: garbage under the next number, for another series", "R2");
        self.add(what, garbage, find("notes", "latest"), "fine", number(2));
    }

    /// List 3 of `photos`, and what is then the latest.
    fn list(&mut self, what: &str, rule: &str, bytes: Vec<u8>, itself: &str) {
        let name = self.good.list(3, 0, &[], &[]).name(&self.good.keys);
        let changes = Changes::put(&name, bytes);
        let (verdict, expect) = match itself {
            "unsigned" => ("fine", number(5)),
            _ => ("put aside", aside(5, &[&name])),
        };
        self.add((what, rule), changes.clone(), find("photos", "latest"), verdict, expect);
        self.add((&format!("{what}, by itself"), rule), changes, object(&name), itself, nothing());
    }

    fn add_lists(&mut self) {
        let keys = self.good.keys.under(1);
        let base = self.good.list(3, 5, &[(1, 1), (4, 4)], &[2, 5]);
        let (sound, name) = (base.object(&keys), base.name(&keys));
        let what = ("kept: the newest is forgotten", "R31");
        self.add(what, Changes::put(&name, sound.clone()), find("photos", "latest"), "fine", number(4));
        let all = List { through: 6, runs: vec![(4, 6)], ..base.clone() };
        let all = List { forgotten: vec![self.good.hashed(&[1, 2])], ..all };
        let what = ("kept: a number that isn't given yet", "R31");
        self.add(what, Changes::put(&name, all.object(&keys)), find("photos", "1"), "missing", nothing());
        self.list("kept: somebody else's signature", "R7", base.object(&keys.forging()), "unsigned");
        let value = base.value();
        let as_collection = keys.sign(COLLECTION, &name, &value.0);
        let as_collection = keys.record(LIST, &name, &value.clone().raw(as_collection));
        self.list("kept: signed as a collection", "R7", as_collection, "unsigned");
        let elsewhere = keys.sign(LIST, &self.good.list(4, 0, &[], &[]).name(&keys), &value.0);
        let elsewhere = keys.record(LIST, &name, &value.clone().raw(elsewhere));
        self.list("kept: signed under another name", "R7", elsewhere, "unsigned");
        let mut flipped = sound.clone();
        flipped[70] ^= 1;
        self.list("kept: a bit has flipped", "R9", flipped, "damaged");
        self.list("kept: no signature", "R9", keys.record_as(LIST, &name, &value.0), "damaged");
        let newer = retrailed(sound.clone(), |bytes| bytes[8] = 3);
        self.list("kept: another version", "R43", newer, "unsupported");
        let unknown = retrailed(sound, |bytes| bytes[10] = 200);
        self.list("kept: an unknown generation", "R8", unknown, "unsupported");
        let even = List { extensions: vec![(2, "")], ..base.clone() };
        self.list("kept: an unknown even extension", "R5", even.object(&keys), "unsupported");
        let runs = |runs: &[(u64, u64)]| List { runs: runs.to_vec(), forgotten: vec![], ..base.clone() };
        let forgotten_at = |groups: &[&[u64]]| List {
            forgotten: groups.iter().map(|numbers| self.good.hashed(numbers)).collect(),
            ..base.clone()
        };
        let forgotten = |numbers: &[u64]| forgotten_at(&[numbers]);
        for (what, list) in [
            ("kept: runs that touch", runs(&[(1, 2), (3, 4)])),
            ("kept: runs out of order", runs(&[(4, 4), (1, 1)])),
            ("kept: a run backwards", runs(&[(3, 1)])),
            ("kept: a run from 0", runs(&[(0, 1)])),
            ("kept: a run beyond what the list covers", runs(&[(1, 1), (4, 6)])),
            ("kept: a number forgotten that counts", forgotten(&[2, 4])),
            ("kept: forgotten numbers out of order", forgotten(&[5, 2])),
            ("kept: a forgotten number twice", forgotten(&[2, 2])),
            ("kept: a number forgotten at two times", forgotten_at(&[&[2], &[2, 5]])),
            ("kept: nothing forgotten", forgotten(&[])),
            ("kept: number 0 forgotten", forgotten(&[0])),
            ("kept: more numbers than there are", List { through: 1_000_000_000_000_000, ..base.clone() }),
        ] {
            self.list(what, "R31", list.object(&keys), "damaged");
        }
        let other = List { series: "notes", ..base.clone() };
        self.list("kept: another series than its name's", "R31", keys.signed(LIST, &name, &other.value()), "damaged");
        let other = List { number: 2, ..base };
        self.list("kept: another number than its name's", "R31", keys.signed(LIST, &name, &other.value()), "damaged");
    }

    fn collection(&mut self, what: &str, rule: &str, name: &str, bytes: Vec<u8>, verdict: &str) {
        self.add((what, rule), Changes::put(name, bytes), object(name), verdict, nothing());
    }

    fn add_collections(&mut self) {
        let keys = self.good.keys.under(1);
        let (begun, ended) = ("gc/000000000000002", "gc/000000000000001-ended");
        let sealed = |keys: &Keys, name: &str, value: &Value| keys.signed(COLLECTION, name, value);
        let sound = self.good.begun(2);
        self.collection("gc: one more", "R1", begun, sealed(&keys, begun, &sound), "fine");
        self.collection(
            "gc: somebody else's signature",
            "R7",
            begun,
            sealed(&keys.forging(), begun, &sound),
            "unsigned",
        );
        self.collection(
            "gc: another number than its name's",
            "R9",
            begun,
            sealed(&keys, begun, &self.good.begun(3)),
            "damaged",
        );
        self.collection(
            "gc: an end where it begins",
            "R9",
            begun,
            sealed(&keys, begun, &self.good.ended(2)),
            "damaged",
        );
        self.collection(
            "gc: a beginning where it ends",
            "R9",
            ended,
            sealed(&keys, ended, &self.good.begun(1)),
            "damaged",
        );
        let mut even = sound.clone();
        even.0.pop();
        let even = even.extensions(&[(2, "")]);
        self.collection("gc: an unknown even extension", "R5", begun, sealed(&keys, begun, &even), "unsupported");
        let newer = retrailed(sealed(&keys, begun, &sound), |bytes| bytes[8] = 2);
        self.collection("gc: another version", "R9", begun, newer, "unsupported");
        let front = || Value::new().n(2).i(CREATED).n(0);
        let unknown = front().n(3).numbers([0; 7]).extensions(&[]);
        self.collection("gc: an unknown authority", "R3", begun, sealed(&keys, begun, &unknown), "damaged");
        let writers = |value: Value| value.list([[7; 16], [6; 16]], |value, id| value.raw(id).n(1));
        let unsorted = writers(front().numbers([0, 0, 0, 0, 0, 1])).numbers([0, 0]).extensions(&[]);
        self.collection("gc: writers out of order", "R3", begun, sealed(&keys, begun, &unsorted), "damaged");
        let short = front().n(0).numbers([0, 0]);
        self.collection("gc: ends too early", "R3", begun, sealed(&keys, begun, &short), "damaged");
    }

    fn add_registrations(&mut self) {
        let keys = self.good.keys.under(1);
        let (running, ended) = (writer("the writer that runs"), writer("the writer that has ended"));
        let end = format!("{ended}-ended");
        let sealed = |name: &str, value: Value| keys.record(REGISTRATION, name, &value);
        let sound = || registration("photos", 6, [5; 32]);
        let mut check = |what: &str, rule: &str, name: &str, bytes: Vec<u8>, verdict: &str| {
            self.add((what, rule), Changes::put(name, bytes), object(name), verdict, nothing());
        };
        check("registration: another", "R28", &running, sealed(&running, sound().extensions(&[])), "fine");
        let odd = sealed(&running, sound().extensions(&[(1, "new")]));
        check("registration: an unknown odd extension", "R5", &running, odd, "fine");
        let even = sealed(&running, sound().extensions(&[(2, "new")]));
        check("registration: an unknown even extension", "R5", &running, even, "unsupported");
        let newer = retrailed(sealed(&running, sound().extensions(&[])), |bytes| bytes[8] = 2);
        check("registration: another version", "R9", &running, newer, "unsupported");
        let series = sealed(&running, registration("a#b", 6, [5; 32]).extensions(&[]));
        check("registration: for a series with a number sign", "R28", &running, series, "damaged");
        let elsewhere = sealed(&ended, sound().extensions(&[]));
        check("registration: sealed under another name", "R9", &running, elsewhere, "damaged");
        let mut flipped = sealed(&running, sound().extensions(&[]));
        flipped[90] ^= 1;
        check("registration: a bit has flipped", "R9", &running, flipped, "damaged");
        let token = keys.record(REGISTRATION_END, &end, &Value::new().raw([1; 32]).extensions(&[]));
        check("registration: an end with another token", "R7", &end, token, "unsigned");
        let newer = keys.record(REGISTRATION_END, &end, &Value::new().raw([1; 32]).extensions(&[(2, "")]));
        check("registration: an end with an unknown even extension", "R5", &end, newer, "unsupported");
    }
}
