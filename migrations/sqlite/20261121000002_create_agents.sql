-- Agents, their versions, conversations, runs and steps: everything the agent-runner service writes.

create table agents (
    id text not null,
    sandbox_id text not null,
    user_id text not null,
    slug text not null,
    kind text not null,
    name text not null,
    description text,
    system_prompt text not null,
    tool_allowlist text not null,
    tool_sources text,
    model_settings text not null,
    status text not null,
    version integer not null,
    created_at text not null,
    updated_at text not null,
    constraint agents_pkey primary key (id),
    constraint agents_sandbox_id_slug_key unique (sandbox_id, slug),
    constraint agents_kind_check check (kind in ('user', 'system')),
    constraint agents_status_check check (status in ('active', 'archived'))
);

-- Every version as it was, never changed; a run records the version it used.
create table agent_versions (
    agent_id text not null,
    version integer not null,
    snapshot text not null,
    created_by text not null,
    created_at text not null,
    constraint agent_versions_pkey primary key (agent_id, version),
    constraint agent_versions_agent_id_fkey foreign key (agent_id) references agents (id) on delete cascade
);

-- A conversation belongs to one person in one sandbox with one agent. busy_run_id is the turn in progress.
create table conversations (
    id text not null,
    sandbox_id text not null,
    user_id text not null,
    agent_id text not null,
    busy_run_id text,
    created_at text not null,
    updated_at text not null,
    constraint conversations_pkey primary key (id),
    constraint conversations_agent_id_fkey foreign key (agent_id) references agents (id) on delete cascade
);
create index conversations_sandbox_id_idx on conversations (sandbox_id);
create index conversations_agent_id_idx on conversations (agent_id);

create table conversation_messages (
    session_id text not null,
    seq integer not null,
    run_id text not null,
    message text not null,
    created_at text not null,
    constraint conversation_messages_pkey primary key (session_id, seq),
    constraint conversation_messages_session_id_fkey foreign key (session_id) references conversations (id) on delete cascade
);

create table runs (
    id text not null,
    sandbox_id text not null,
    user_id text not null,
    agent_id text not null,
    agent_version integer not null,
    trigger_id text,
    session_id text,
    status text not null,
    input_event text,
    output_text text,
    tokens_in integer,
    tokens_out integer,
    cost_microcents integer,
    duration_ms integer,
    error_type text,
    error_message text,
    warnings text not null,
    tool_resolution_trace text,
    unique_key text,
    lease_owner text,
    lease_expires_at text,
    fence integer not null,
    created_at text not null,
    started_at text,
    finished_at text,
    constraint runs_pkey primary key (id),
    constraint runs_unique_key_key unique (sandbox_id, unique_key),
    constraint runs_agent_id_fkey foreign key (agent_id) references agents (id) on delete cascade,
    constraint runs_status_check check (status in ('pending', 'running', 'succeeded', 'failed', 'timeout', 'cancelled'))
);
create index runs_agent_id_id_idx on runs (agent_id, id);
create index runs_sandbox_id_id_idx on runs (sandbox_id, id);
create index runs_lease_expires_at_idx on runs (lease_expires_at) where status in ('pending', 'running');

-- The journal: each model answer and each tool call is a step, written before it starts. A reading tool call may be
-- repeated, so its row may be written together with its result.
create table run_steps (
    id text not null,
    run_id text not null,
    seq integer not null,
    kind text not null,
    state text not null,
    name text,
    call_id text,
    arguments text,
    output text,
    error text,
    is_read_only boolean not null,
    result_bytes integer,
    tokens_in integer,
    tokens_out integer,
    started_at text not null,
    finished_at text,
    constraint run_steps_pkey primary key (id),
    constraint run_steps_run_id_seq_key unique (run_id, seq),
    constraint run_steps_run_id_fkey foreign key (run_id) references runs (id) on delete cascade,
    constraint run_steps_kind_check check (kind in ('model', 'tool')),
    constraint run_steps_state_check check (state in ('intended', 'done', 'failed', 'unknown'))
);
