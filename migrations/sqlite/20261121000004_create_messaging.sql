-- Outbox, inbox and idempotency keys. Rows carry the service that owns them; no service reads another's rows.

-- A state change and its message are one transaction; a relay publishes and deletes.
create table outbox (
    id text not null,
    owner text not null,
    destination text not null,
    is_broadcast boolean not null,
    kind text not null,
    body text not null,
    headers text not null,
    created_at text not null,
    constraint outbox_pkey primary key (id)
);
create index outbox_owner_id_idx on outbox (owner, id);

-- A consumer records the message in the transaction of its effect, so a second delivery changes nothing.
create table inbox (
    consumer text not null,
    message_id text not null,
    received_at text not null,
    constraint inbox_pkey primary key (consumer, message_id)
);
create index inbox_received_at_idx on inbox (received_at);

-- First answers of requests that carried an Idempotency-Key. The answer is sealed: it may hold a secret shown once.
create table idempotency_keys (
    scope text not null,
    idempotency_key text not null,
    request_hash text not null,
    sealed_response text not null,
    created_at text not null,
    constraint idempotency_keys_pkey primary key (scope, idempotency_key)
);
create index idempotency_keys_created_at_idx on idempotency_keys (created_at);
