//! The kinds of operation, as the gate, the fault rules and error messages tell them apart.

/// The kinds of operation, as the gate and the fault rules tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Create,
    Open,
    Read,
    Write,
    Store,
    Submit,
    Frame,
    Sync,
    SyncDir,
    Remove,
    Rename,
    Link,
    List,
    Map,
    Populate,
    Lock,
}

impl Op {
    const ALL: [(Op, &'static str, &'static str); 16] = [
        (Op::Create, "create", "create"),
        (Op::Open, "open", "open"),
        (Op::Read, "read", "read"),
        (Op::Write, "write", "write"),
        (Op::Store, "store", "write"),
        (Op::Submit, "submit", "write"),
        (Op::Frame, "frame", "write"),
        (Op::Sync, "sync", "sync"),
        (Op::SyncDir, "syncdir", "sync"),
        (Op::Remove, "remove", "remove"),
        (Op::Rename, "rename", "rename"),
        (Op::Link, "link", "link"),
        (Op::List, "list", "list"),
        (Op::Map, "map", "map"),
        (Op::Populate, "populate", "read"),
        (Op::Lock, "lock", "lock"),
    ];

    /// The operation that fault rules call `name`.
    pub(super) fn from_rule_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, rule_name, _)| *rule_name == name).map(|(op, ..)| *op)
    }

    /// The verb for error messages.
    pub(super) fn verb(self) -> &'static str {
        Self::ALL.iter().find(|(op, ..)| *op == self).map_or("use", |(_, _, verb)| verb)
    }

    /// True if it counts as a point where the power can go.
    pub(super) fn changes_something(self) -> bool {
        !matches!(self, Op::Open | Op::Read | Op::List | Op::Map | Op::Populate)
    }
}
