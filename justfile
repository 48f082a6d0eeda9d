# Short names for the commands that CONTRIBUTING.md spells out; nothing here does more than call them.

default:
    @just --list

# What the continuous integration runs.
ci:
    .ci/run

# The whole test suite, without the slow sets.
test *ARGS:
    cargo test --workspace --locked {{ARGS}}

# One slow set: `just slow real`.
slow SET *ARGS:
    CUTOVER_TEST={{SET}} cargo test --workspace --locked {{ARGS}}

# Formatting and lints, as strict as in the continuous integration.
lint:
    cargo fmt --check
    cargo clippy --workspace --all-targets --locked -- -D warnings

# Every deliberate mistake must be found by the test that owns the promise.
mutants:
    cargo xtask mutants

# The tour, with an address to open.
demo *ARGS:
    cargo run --release --locked -- demo {{ARGS}}

# Licences, banned crates and sources.
deny:
    cargo deny check licenses bans sources
