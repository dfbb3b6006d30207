-- Triggers (written by trigger-dispatcher) and data sources (written by ingestion).

create table triggers (
    id text not null,
    sandbox_id text not null,
    user_id text not null,
    agent_id text not null,
    data_source_id text not null,
    event_type_filter text not null,
    filter_config text,
    status text not null,
    rate_limit_per_hour integer,
    last_fired_at text,
    fire_count integer not null,
    created_at text not null,
    updated_at text not null,
    constraint triggers_pkey primary key (id),
    constraint triggers_status_check check (status in ('active', 'paused', 'disabled'))
);
create index triggers_sandbox_id_agent_id_idx on triggers (sandbox_id, agent_id);

create table data_sources (
    id text not null,
    sandbox_id text not null,
    user_id text not null,
    provider text not null,
    name text not null,
    ingestion_mode text not null,
    status text not null,
    kind text not null,
    external_account_id text,
    adapter_config text not null,
    poll_interval_seconds integer,
    webhook_url text,
    last_sync_at text,
    created_at text not null,
    updated_at text not null,
    constraint data_sources_pkey primary key (id),
    constraint data_sources_ingestion_mode_check check (ingestion_mode in ('manual', 'polling', 'realtime', 'batch', 'user_mcp')),
    constraint data_sources_status_check check (status in ('active', 'paused', 'disconnected', 'error', 'archived')),
    constraint data_sources_kind_check check (kind in ('durable', 'ephemeral'))
);
create index data_sources_sandbox_id_idx on data_sources (sandbox_id);
