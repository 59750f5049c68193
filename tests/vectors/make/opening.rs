//! The config, key slots and rosters.

use super::{Cases, Changes, aside, find, nothing, object, open};
use crate::forge::{Keys, Slot, Unlock, Value, hex, random, retrailed};
use crate::good::{Config, PASSPHRASE, Roster, commit, config_of};

const ADMIN: &str = "administrator";
const PHONE: &str = "phone";

impl Cases {
    pub(super) fn add_opening(&mut self) {
        self.add(("nothing is changed", "R11"), Changes::none(), open(ADMIN), "fine", nothing());
        self.add(("an append-only passphrase opens", "R16"), Changes::none(), open(PHONE), "fine", nothing());
        self.add(("a secret that was never added", "R14"), Changes::none(), open("nobody"), "wrong secret", nothing());
        self.add(
            ("a slot that the newest roster leaves out", "R13"),
            Changes::none(),
            open("removed"),
            "wrong secret",
            nothing(),
        );
        self.add_configs();
        self.add_slots();
        self.add_keyrings();
        self.add_rosters();
    }

    fn config(&mut self, what: &str, rule: &str, bytes: Vec<u8>, verdict: &str) {
        self.add((what, rule), Changes::put("config", bytes), open(ADMIN), verdict, nothing());
    }

    fn add_configs(&mut self) {
        let (keys, config) = (self.good.keys.clone(), self.good.config.clone());
        let sound = config.object(&keys);
        self.add(("no config", "R41"), Changes::remove("config"), open(ADMIN), "missing", nothing());
        let flipped = |at: usize| {
            let mut bytes = sound.clone();
            bytes[at] ^= 4;
            bytes
        };
        self.config("config: a bit has flipped", "R9", flipped(40), "damaged");
        self.config("config: a bit of the version has flipped", "R9", flipped(8), "damaged");
        self.config("config: cut short", "R9", sound[..100].to_vec(), "damaged");
        let changed = |at: usize, to: u8| retrailed(sound.clone(), |bytes| bytes[at] = to);
        self.config("config: another version", "R9", changed(8, 2), "unsupported");
        self.config("config: an unknown kind", "R9", changed(9, 200), "unsupported");
        self.config("config: the kind of a record", "R9", changed(9, 6), "damaged");
        self.config("config: other letters in front", "R9", changed(0, b'B'), "damaged");
        self.config("config: somebody else's signature", "R11", config.object(&keys.forging()), "damaged");
        let other = Keys { identity: random("another identity"), ..keys.clone() };
        self.config("config: the keyed hash of another keyring", "R11", config.object(&other), "damaged");
        let forger = Keys { seed: random("a forger"), ..keys.forging() };
        let own = Config { administrator: forger.administrator(), ..config.clone() };
        self.config("config: another administrator, who signed it", "R11", own.object(&forger), "damaged");
        let with = |change: fn(&mut Config)| {
            let mut config = config.clone();
            change(&mut config);
            config.object(&keys)
        };
        let needs = with(|config| config.to_read = vec!["holograms"]);
        self.config("config: an unknown feature is needed to read", "R12", needs, "unsupported");
        let needs = with(|config| config.to_write = vec!["holograms"]);
        self.config("config: an unknown feature is needed to write", "R12", needs, "fine");
        let capital = with(|config| config.optional = vec!["Holograms"]);
        self.config("config: a feature with a capital letter", "R12", capital, "damaged");
        let long = with(|config| config.optional = vec!["a-feature-of-thirty-three-letters"]);
        self.config("config: a feature of 33 letters", "R12", long, "damaged");
        let order = with(|config| config.optional = vec!["b", "a"]);
        self.config("config: features out of order", "R12", order, "damaged");
        let even = with(|config| config.extensions = vec![(2, "")]);
        self.config("config: an unknown even extension", "R5", even, "unsupported");
        let order = with(|config| config.extensions = vec![(3, ""), (1, "")]);
        self.config("config: extensions out of order", "R3", order, "damaged");
        let more = config_of(&config.value().raw([0]), &keys);
        self.config("config: a byte after the value", "R3", more, "damaged");
        let mut value = config.value();
        value.0.truncate(value.0.len() - Value::new().extensions(&config.extensions).0.len());
        let wide = config_of(&value.raw([251, 0, 0]), &keys);
        self.config("config: a number longer than it needs to be", "R3", wide, "damaged");
        let long = "x".repeat(70_000).leak();
        let long = Config { extensions: vec![(1, long)], ..config.clone() }.object(&keys);
        self.config("config: longer than 64 KiB", "R46", long, "damaged");
    }

    /// A roster that names a slot beside the administrator's, and what comes of a secret.
    fn slot(&mut self, what: &str, rule: &str, slot: &Slot, secret: &str, verdict: &str) {
        let keys = self.good.keys.clone();
        let roster = Roster::new(3, &[&self.good.slots[0], slot]);
        let changes = Changes::put(roster.name(&keys), roster.object(&keys)).and(slot.name(), slot.object());
        self.add((what, rule), changes, open(secret), verdict, nothing());
    }

    fn add_slots(&mut self) {
        let keys = self.good.keys.clone();
        let base = Slot::new(&keys, "laptop", true, Unlock::Passphrase(PASSPHRASE, 8, 1, 1));
        self.slot("slot: a new one that the newest roster names", "R13", &base, PHONE, "fine");
        let with = |unlock| Slot { unlock, ..base.clone() };
        self.slot("slot: an unknown kdf", "R14", &with(Unlock::Newer(2)), PHONE, "unsupported");
        self.slot("slot: an unknown kdf keeps no other from opening", "R14", &with(Unlock::Newer(3)), ADMIN, "fine");
        let dear = with(Unlock::Passphrase(PASSPHRASE, 65537, 1, 1));
        self.slot("slot: too much memory", "R15", &dear, PHONE, "unsupported");
        let dear = with(Unlock::Passphrase(PASSPHRASE, 65536, 4, 1));
        self.slot("slot: too many passes", "R15", &dear, PHONE, "unsupported");
        let dear = with(Unlock::Passphrase(PASSPHRASE, 1024, 1, 65));
        self.slot("slot: too many lanes", "R15", &dear, PHONE, "unsupported");
        let none = with(Unlock::Passphrase(PASSPHRASE, 8, 0, 1));
        self.slot("slot: no pass", "R15", &none, PHONE, "unsupported");
        let little = with(Unlock::Passphrase(PASSPHRASE, 8, 1, 4));
        self.slot("slot: less memory than its lanes need", "R15", &little, PHONE, "unsupported");
        let lying = Slot { append_only: false, ..base.clone() };
        self.slot("slot: states that it is an administrator's", "R16", &lying, PHONE, "damaged");
        let full = Slot { keyring: keys.keyring(false), ..base.clone() };
        self.slot("slot: states that it is append-only", "R16", &full, PHONE, "damaged");
        let key = Slot { stated_key: random("another slot's key"), ..base.clone() };
        self.slot("slot: another private key than the public one", "R16", &key, PHONE, "damaged");
        let odd = Slot { extensions: vec![(1, "new")], ..base.clone() };
        self.slot("slot: an unknown odd extension", "R5", &odd, PHONE, "fine");
        let even = Slot { extensions: vec![(2, "new")], ..base.clone() };
        self.slot("slot: an unknown even extension", "R14", &even, PHONE, "unsupported");
        let foreign = Slot { repository: random("another repository"), ..base.clone() };
        self.slot("slot: another repository's id", "R16", &foreign, PHONE, "fine");

        let phone = self.good.slots[1].name();
        self.add(("slot: missing", "R14"), Changes::remove(&phone), open(PHONE), "damaged", nothing());
        let mut bytes = self.good.objects[&phone].clone();
        bytes[60] ^= 1;
        self.add(("slot: damaged", "R14"), Changes::put(&phone, bytes.clone()), open(PHONE), "damaged", nothing());
        let what = ("slot: damaged, and another opens", "R14");
        self.add(what, Changes::put(&phone, bytes), open(ADMIN), "fine", nothing());
        let long = Slot { label: "x".repeat(40_000).leak(), ..base };
        self.slot("slot: longer than 39088 bytes", "R46", &long, PHONE, "damaged");
    }

    fn add_keyrings(&mut self) {
        let keys = self.good.keys.clone();
        let base = Slot::new(&keys, "desktop", true, Unlock::Passphrase(PASSPHRASE, 8, 1, 1));
        let with = |keyring| Slot { keyring, ..base.clone() };
        let stranger = Keys { seed: random("a stranger"), ..keys.clone() };
        let other = with(stranger.keyring(true));
        self.slot("keyring: another administrator than the config's", "R16", &other, PHONE, "damaged");
        let own = Keys { identity: random("another identity"), ..keys.clone() };
        self.slot("keyring: another identity", "R11", &with(own.keyring(true)), PHONE, "damaged");
        let two = Value::new().raw(keys.identity).n(1).n(0).raw([1; 32]).n(1).raw([2; 32]).raw(keys.administrator());
        let two = Slot { append_only: false, ..with(two) };
        self.slot("keyring: a seed that isn't the administrator's", "R16", &two, PHONE, "damaged");
        let mut order = keys.clone();
        order.sealing.reverse();
        self.slot("keyring: generations out of order", "R16", &with(order.keyring(true)), PHONE, "damaged");
        let none = Keys { sealing: Vec::new(), ..keys.clone() };
        self.slot("keyring: no generation", "R16", &with(none.keyring(true)), PHONE, "damaged");
        self.slot("keyring: a byte after it", "R3", &with(keys.keyring(true).raw([0])), PHONE, "damaged");
        let wrong = Keys { sealing: vec![(0, [7; 32])], ..keys.clone() };
        self.slot(
            "keyring: another key than the roster's history",
            "R18",
            &with(wrong.keyring(true)),
            PHONE,
            "damaged",
        );
    }

    /// Roster 3, and what comes of opening the repository, and of the roster itself.
    fn roster(&mut self, what: &str, rule: &str, bytes: Vec<u8>, opens: &str, itself: &str) {
        let name = Roster::new(3, &[]).name(&self.good.keys);
        self.add((what, rule), Changes::put(&name, bytes.clone()), open(PHONE), opens, nothing());
        if opens == "fine" && !itself.is_empty() {
            let what = format!("{what}, by itself");
            self.add((&what, rule), Changes::put(&name, bytes), object(&name), itself, nothing());
        }
    }

    fn add_rosters(&mut self) {
        let (keys, slots) = (self.good.keys.clone(), self.good.slots.clone());
        let base = Roster::new(3, &[&slots[0], &slots[1]]);
        let (sound, name) = (base.object(&keys), base.name(&keys));
        self.roster("roster: one more", "R17", sound.clone(), "fine", "fine");
        let alone = Roster::new(3, &[&slots[0]]);
        self.roster("roster: without the slot", "R13", alone.object(&keys), "wrong secret", "");
        self.roster("roster: somebody else's signature", "R17", alone.object(&keys.forging()), "fine", "unsigned");
        let mut flipped = sound.clone();
        flipped[30] ^= 1;
        self.roster("roster: a bit has flipped", "R17", flipped, "fine", "damaged");
        let order = Roster { sorted: false, ..base.clone() };
        self.roster("roster: slots out of order", "R18", order.object(&keys), "fine", "damaged");
        let none = Roster::new(3, &[]);
        self.roster("roster: no slot", "R18", none.object(&keys), "fine", "damaged");
        let newer = Roster { version: 2, ..base.clone() };
        self.roster("roster: signed, and of another version", "R17", newer.object(&keys), "unsupported", "");
        let even = Roster { extensions: vec![(4, "")], ..base.clone() };
        self.roster("roster: an unknown even extension", "R5", even.object(&keys), "unsupported", "");
        let other = Roster { repository: random("another repository"), ..base.clone() };
        self.roster("roster: another repository's", "R18", other.object(&keys), "fine", "");
        let fourth = Roster { number: 4, ..base.clone() };
        let body = fourth.object(&keys);
        let value = Value(body[10..body.len() - 96].to_vec());
        self.roster("roster: another number than its name's", "R18", base.sealed(&keys, &value), "fine", "damaged");
        let more = Value(sound[10..sound.len() - 96].to_vec()).raw([0]);
        self.roster("roster: a byte after the value", "R3", base.sealed(&keys, &more), "fine", "damaged");
        let mut grant = Value(sound[10..sound.len() - 96].to_vec());
        let at = grant.0.windows(32).position(|window| window == slots[1].public()).unwrap() + 32 + 40;
        grant.0[at] ^= 1;
        self.roster("roster: a grant that doesn't open", "R18", base.sealed(&keys, &grant), "damaged", "");
        let mut history = Value(sound[10..sound.len() - 96].to_vec());
        let at = history.0.len() - 10;
        history.0[at] ^= 1;
        self.roster("roster: a history that doesn't open", "R18", base.sealed(&keys, &history), "damaged", "");
        let mut order = keys.clone();
        order.sealing.insert(1, (7, [7; 32]));
        self.roster("roster: an older generation of a higher number", "R18", base.object(&order), "damaged", "");
        let what = ("roster: a name in which the tag is made up", "R17");
        let made_up = format!("keys/roster-000000000000009-{}", hex(&[7; 16]));
        self.add(what, Changes::put(made_up, sound), open(PHONE), "fine", nothing());
        let what = ("roster: a number that isn't padded", "R1");
        let short = name.replace("000000000000003", "3");
        let changes = Changes::put(&short, alone.object(&keys));
        self.add(what, changes.clone(), open(PHONE), "fine", nothing());
        self.add(("roster: the name of that", "R1"), changes, object(&short), "foreign", nothing());

        let rosters = [1, 2].map(|number| Roster::new(number, &[]).name(&keys));
        let gone = Changes::remove(&rosters[0]).without(&rosters[1]);
        self.add(("no roster: the first slot opens", "R13"), gone.clone(), open(ADMIN), "fine", nothing());
        self.add(("no roster: no other slot opens", "R13"), gone.clone(), open(PHONE), "wrong secret", nothing());
        let [fourth, fifth] = [4, 5].map(|number| commit(&keys, "photos", number));
        let expect = aside(1, &[&fourth, &fifth]);
        self.add(
            ("no roster: what is of a newer generation", "R8"),
            gone,
            find("photos", "latest"),
            "put aside",
            expect,
        );
    }
}
