//! The two lists of migrations make the same schema (`design.md` 5).
//!
//! What is compared is read from the databases and not from the files, except for the names of SQLite's constraints,
//! which SQLite keeps only as text.

use std::collections::{BTreeMap, BTreeSet};

use copass_store::{Conn, fetch_all};
use copass_test_support::TestDatabase;

/// Lines such as `column users.email text null`, so that a difference reads well.
type Schema = BTreeSet<String>;

#[tokio::test]
async fn both_lists_of_migrations_make_the_same_schema() {
    let Some(postgres) = TestDatabase::postgres().await else {
        return;
    };
    let sqlite = TestDatabase::sqlite().await;
    let postgres = of_postgres(&mut postgres.read().await.unwrap()).await;
    let sqlite = of_sqlite(&mut sqlite.read().await.unwrap()).await;
    let only = |one: &Schema, other: &Schema| one.difference(other).cloned().collect::<Vec<_>>().join("\n  ");
    assert!(
        postgres == sqlite,
        "only in PostgreSQL:\n  {}\nonly in SQLite:\n  {}",
        only(&postgres, &sqlite),
        only(&sqlite, &postgres)
    );
    // The comparison itself sees each kind of thing.
    for (kind, at_least) in [
        ("column", 100),
        ("primary key", 15),
        ("unique", 5),
        ("foreign key", 10),
        ("check", 10),
        ("index", 10),
        ("trigger", 2),
    ] {
        let count = postgres.iter().filter(|line| line.starts_with(kind)).count();
        assert!(count >= at_least, "{count} of {kind}");
    }
}

/// How the types of the two correspond (`design.md` 5); anything else is a difference.
fn type_on_sqlite(postgres: &str) -> &str {
    match postgres {
        "text" | "jsonb" | "timestamp with time zone" => "text",
        "bigint" => "integer",
        "boolean" => "boolean",
        other => other,
    }
}

fn nullability(is_nullable: bool) -> &'static str {
    if is_nullable { "null" } else { "not null" }
}

fn columns_of(text: &str) -> String {
    format!("({})", text.replace(',', ", "))
}

/// The quoted words of a check, which is all that our checks hold.
fn words(definition: &str) -> String {
    let words: BTreeSet<&str> = definition.split('\'').skip(1).step_by(2).collect();
    words.into_iter().collect::<Vec<_>>().join(" ")
}

async fn of_postgres(conn: &mut Conn) -> Schema {
    let mut schema = Schema::new();
    let columns = fetch_all!(
        *conn,
        (String, String, String, bool),
        "select table_name::text, column_name::text, data_type::text, is_nullable = 'YES' \
         from information_schema.columns where table_schema = 'public' and table_name <> '_sqlx_migrations'"
    );
    for (table, column, kind, is_nullable) in columns.unwrap() {
        schema.insert(format!(
            "column {table}.{column} {} {}",
            type_on_sqlite(&kind),
            nullability(is_nullable)
        ));
    }
    let constraints = fetch_all!(
        *conn,
        (String, String, String, String, Option<String>, String, String),
        "select c.conrelid::regclass::text, c.conname::text, c.contype::text, \
         coalesce((select string_agg(a.attname, ',' order by k.ord) from unnest(c.conkey) with ordinality k(num, ord) \
             join pg_attribute a on a.attrelid = c.conrelid and a.attnum = k.num), ''), \
         (select c.confrelid::regclass::text || '(' || string_agg(a.attname, ', ' order by k.ord) || ')' \
             from unnest(c.confkey) with ordinality k(num, ord) \
             join pg_attribute a on a.attrelid = c.confrelid and a.attnum = k.num), \
         c.confdeltype::text, pg_get_constraintdef(c.oid) \
         from pg_constraint c where c.connamespace = 'public'::regnamespace and c.contype in ('p', 'u', 'f', 'c') \
         and c.conrelid::regclass::text <> '_sqlx_migrations'"
    );
    for (table, name, kind, columns, target, on_delete, definition) in constraints.unwrap() {
        let columns = columns_of(&columns);
        schema.insert(match kind.as_str() {
            "p" => format!("primary key {table} {name} {columns}"),
            "u" => format!("unique {table} {name} {columns}"),
            "f" => {
                let action = if on_delete == "c" { "cascade" } else { "no action" };
                format!(
                    "foreign key {table} {name} {columns} to {} on delete {action}",
                    target.unwrap()
                )
            }
            _ => format!("check {table} {name}: {}", words(&definition)),
        });
    }
    let indexes = fetch_all!(
        *conn,
        (String, String, String, bool, bool),
        "select i.indrelid::regclass::text, i.indexrelid::regclass::text, \
         (select string_agg(a.attname, ',' order by k.ord) from unnest(i.indkey::int2[]) with ordinality k(num, ord) \
             join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.num), \
         i.indisunique, i.indpred is not null \
         from pg_index i join pg_class t on t.oid = i.indrelid \
         where t.relnamespace = 'public'::regnamespace and t.relname <> '_sqlx_migrations' \
         and not exists (select from pg_constraint c where c.conindid = i.indexrelid and c.contype in ('p', 'u'))"
    );
    for (table, name, columns, is_unique, is_partial) in indexes.unwrap() {
        schema.insert(index(&table, &name, &columns, is_unique, is_partial));
    }
    let triggers = fetch_all!(
        *conn,
        (String, String),
        "select tgrelid::regclass::text, tgname::text from pg_trigger where not tgisinternal"
    );
    schema.extend(
        triggers
            .unwrap()
            .into_iter()
            .map(|(table, name)| format!("trigger {table} {name}")),
    );
    schema
}

fn index(table: &str, name: &str, columns: &str, is_unique: bool, is_partial: bool) -> String {
    let unique = if is_unique { "unique " } else { "" };
    let partial = if is_partial { " where" } else { "" };
    format!("index {unique}{table} {name} {}{partial}", columns_of(columns))
}

async fn of_sqlite(conn: &mut Conn) -> Schema {
    let mut schema = Schema::new();
    let columns = fetch_all!(
        *conn,
        (String, String, String, bool),
        "select m.name, c.name, lower(c.type), c.\"notnull\" = 0 from sqlite_master m, pragma_table_info(m.name) c \
         where m.type = 'table' and m.name not like 'sqlite\\_%' escape '\\' and m.name <> '_sqlx_migrations'"
    );
    for (table, column, kind, is_nullable) in columns.unwrap() {
        schema.insert(format!("column {table}.{column} {kind} {}", nullability(is_nullable)));
    }
    schema.extend(sqlite_constraints(conn).await);
    let indexes = fetch_all!(
        *conn,
        (String, String, String, bool, bool),
        "select m.name, i.name, (select group_concat(name, ',') from (select name from pragma_index_info(i.name) \
         order by seqno)), i.\"unique\", i.partial from sqlite_master m, pragma_index_list(m.name) i \
         where m.type = 'table' and i.origin = 'c' and m.name <> '_sqlx_migrations'"
    );
    for (table, name, columns, is_unique, is_partial) in indexes.unwrap() {
        schema.insert(index(&table, &name, &columns, is_unique, is_partial));
    }
    let triggers = fetch_all!(
        *conn,
        (String, String),
        "select tbl_name, name from sqlite_master where type = 'trigger'"
    );
    schema.extend(
        triggers
            .unwrap()
            .into_iter()
            .map(|(table, name)| format!("trigger {table} {name}")),
    );
    schema
}

/// The constraints as SQLite enforces them; only their names come from the text.
async fn sqlite_constraints(conn: &mut Conn) -> Schema {
    let mut enforced: BTreeMap<(String, &str, String), String> = BTreeMap::new();
    let keys = fetch_all!(
        *conn,
        (String, String, String),
        "select m.name, i.origin, (select group_concat(name, ',') from (select name from pragma_index_info(i.name) \
         order by seqno)) from sqlite_master m, pragma_index_list(m.name) i \
         where m.type = 'table' and i.origin in ('pk', 'u') and m.name <> '_sqlx_migrations'"
    );
    for (table, origin, columns) in keys.unwrap() {
        let kind = if origin == "pk" { "primary key" } else { "unique" };
        enforced.insert((table, kind, columns_of(&columns)), String::new());
    }
    let references = fetch_all!(
        *conn,
        (String, String, String, String, String),
        "select m.name, group_concat(f.\"from\", ','), f.\"table\", group_concat(f.\"to\", ', '), lower(f.on_delete) \
         from sqlite_master m, pragma_foreign_key_list(m.name) f where m.type = 'table' group by m.name, f.id"
    );
    for (table, columns, target, target_columns, on_delete) in references.unwrap() {
        let rest = format!(" to {target}({target_columns}) on delete {on_delete}");
        enforced.insert((table, "foreign key", columns_of(&columns)), rest);
    }
    let mut schema = Schema::new();
    let tables = fetch_all!(
        *conn,
        (String, String),
        "select name, sql from sqlite_master where type = 'table' and name <> '_sqlx_migrations'"
    );
    for (table, sql) in tables.unwrap() {
        for line in sql.lines().filter_map(|line| line.trim().strip_prefix("constraint ")) {
            let (name, definition) = line.split_once(' ').unwrap();
            if definition.starts_with("check") {
                schema.insert(format!("check {table} {name}: {}", words(definition)));
                continue;
            }
            let (kind, rest) = definition.split_once(" (").unwrap();
            let kind = ["primary key", "unique", "foreign key"]
                .into_iter()
                .find(|known| *known == kind)
                .unwrap();
            let columns = format!("({})", rest.split_once(')').unwrap().0);
            let rest = enforced.remove(&(table.clone(), kind, columns.clone()));
            let rest = rest.unwrap_or_else(|| panic!("SQLite does not enforce {name} of {table}"));
            schema.insert(format!("{kind} {table} {name} {columns}{rest}"));
        }
    }
    assert!(enforced.is_empty(), "constraints without a name: {enforced:?}");
    schema
}
