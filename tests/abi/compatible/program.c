/*
 * program.c - a program of version 0.2, which later libraries must run unchanged
 *
 * program-0.2-x86_64 was compiled from this file with the headers of version 0.2, for Linux on x86_64 with
 * glibc. It is never compiled again: the full gate runs it with the present library (A3). The program
 * depends on the sizes and offsets of structures, the numbers, the order of arguments, and the callbacks of
 * that version. Exit status: 0 if all is as in version 0.2, 1 otherwise.
 */
#include <keepsock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            exit(1); \
        } \
    } while (0)

#define OK(call) CHECK((call) == KEEPSOCK_OK)

/* A structure with memory behind it that a larger structure of a later library must not touch. */
#define GUARDED(type, name) \
    struct { \
        type value; \
        unsigned char after[256]; \
    } name; \
    memset(&name, 0x5a, sizeof name)

#define UNTOUCHED(name) CHECK(untouched((name).after, sizeof (name).after))

static int untouched(const unsigned char *bytes, size_t len)
{
    while (len > 0)
        if (bytes[--len] != 0x5a)
            return 0;
    return 1;
}

static int opened, closed, ticks;

static void on_open(keepsock_conn conn, void *user)
{
    CHECK(user == &opened);
    OK(keepsock_conn_join(conn, "all", NULL));
    ++opened;
}

/* Answers a message with the same message. */
static void on_data(keepsock_conn conn, const void *buf, size_t len, void *user)
{
    GUARDED(keepsock_five_tuple, tuple);

    (void)user;
    OK(keepsock_conn_five_tuple(conn, &tuple.value, sizeof tuple.value, NULL));
    UNTOUCHED(tuple);
    CHECK(strcmp(tuple.value.remote_address, "127.0.0.1") == 0);
    OK(keepsock_conn_send(conn, buf, len, NULL));
}

static void on_close(keepsock_conn conn, int32_t reason, void *user)
{
    (void)conn;
    (void)user;
    CHECK(reason == KEEPSOCK_CLOSE_PEER_CLOSED);
    ++closed;
}

static void on_tick(uint64_t timer, void *user)
{
    uint32_t sent = 0;

    (void)timer;
    OK(keepsock_service_broadcast(user, "all", "news", 4, &sent, NULL, NULL, NULL, NULL));
    CHECK(sent == 1);
    ++ticks;
}

static void stream(void)
{
    keepsock_callbacks callbacks;
    keepsock_framing framing;
    keepsock_options *options = NULL;
    keepsock_serve_options *serve = NULL;
    keepsock_server *server = NULL;
    keepsock_service *service = NULL;
    keepsock_client *client = NULL;
    keepsock_cancel_token *token = NULL;
    char endpoint[64], reply[64];
    size_t len = 0;
    uint32_t completed = 0, reset = 0;
    uint64_t timer = 0;
    GUARDED(keepsock_five_tuple, tuple);
    GUARDED(keepsock_keepalive, keepalive);
    GUARDED(keepsock_connection_stats, stats);
    GUARDED(keepsock_service_stats, service_stats);

    memset(&callbacks, 0, sizeof callbacks);
    callbacks.size = sizeof callbacks;
    callbacks.on_open = on_open;
    callbacks.on_data = on_data;
    callbacks.on_close = on_close;
    memset(&framing, 0, sizeof framing);
    framing.size = sizeof framing;
    framing.kind = KEEPSOCK_FRAMING_PREFIXED;
    framing.length_format = KEEPSOCK_LENGTH_FORMAT_U16_BE;
    framing.max = 1000;

    OK(keepsock_options_new(&options, NULL));
    OK(keepsock_options_set_keepalive(options, 30000, 10000, 3, NULL));
    OK(keepsock_options_set_connect_timeout(options, 5000, NULL));
    OK(keepsock_options_set_read_timeout(options, 10000, NULL));
    OK(keepsock_cancel_token_new(&token, NULL));
    OK(keepsock_options_set_cancel(options, token, NULL));
    OK(keepsock_serve_options_new(&serve, NULL));
    OK(keepsock_serve_options_set_framing(serve, &framing, NULL));

    OK(keepsock_server_listen("127.0.0.1:0", NULL, &server, NULL));
    OK(keepsock_server_serve_events(server, serve, &callbacks, &opened, &service, NULL));
    snprintf(endpoint, sizeof endpoint, "127.0.0.1:%d", keepsock_server_port(server));
    OK(keepsock_client_connect(endpoint, options, &client, NULL));

    OK(keepsock_client_write_message(client, &framing, "hello", 5, NULL));
    OK(keepsock_client_read_message(client, &framing, reply, sizeof reply, &len, NULL));
    CHECK(len == 5 && memcmp(reply, "hello", 5) == 0);
    OK(keepsock_service_add_timer(service, 1, 0, on_tick, service, &timer, NULL));
    OK(keepsock_client_read_message(client, &framing, reply, sizeof reply, &len, NULL));
    CHECK(len == 4 && memcmp(reply, "news", 4) == 0);

    OK(keepsock_client_five_tuple(client, &tuple.value, sizeof tuple.value, NULL));
    UNTOUCHED(tuple);
    CHECK(tuple.value.protocol == KEEPSOCK_PROTOCOL_TCP);
    CHECK(tuple.value.remote_port == keepsock_server_port(server));
    CHECK(strncmp(tuple.value.text, "tcp 127.0.0.1:", 14) == 0);
    OK(keepsock_client_keepalive(client, &keepalive.value, sizeof keepalive.value, NULL));
    UNTOUCHED(keepalive);
    CHECK(keepalive.value.idle_ms == 30000 && keepalive.value.interval_ms == 10000 && keepalive.value.count == 3);
    OK(keepsock_client_get_stats(client, &stats.value, sizeof stats.value, NULL));
    UNTOUCHED(stats);
    CHECK(stats.value.tcp_state == KEEPSOCK_TCP_STATE_ESTABLISHED);

    keepsock_cancel_token_fire(token);
    CHECK(keepsock_client_read(client, reply, sizeof reply, &len, NULL) == KEEPSOCK_ERR_CANCELLED);
    keepsock_client_free(client);
    OK(keepsock_service_drain(service, 10000, &completed, &reset, NULL));
    OK(keepsock_service_get_stats(service, &service_stats.value, sizeof service_stats.value, NULL));
    UNTOUCHED(service_stats);
    CHECK(service_stats.value.connections == 0);
    keepsock_service_free(service);
    CHECK(opened == 1 && closed == 1 && ticks == 1);
    keepsock_server_free(server);
    keepsock_serve_options_free(serve);
    keepsock_options_free(options);
    keepsock_cancel_token_free(token);
}

static void datagrams(void)
{
    keepsock_datagram *a = NULL, *b = NULL;
    keepsock_recv_item items[2];
    char endpoint[KEEPSOCK_TEXT_SIZE], buf[2][64];
    size_t received = 0;
    GUARDED(keepsock_datagram_info, info);

    OK(keepsock_datagram_bind("127.0.0.1:0", NULL, &a, NULL));
    OK(keepsock_datagram_bind("127.0.0.1:0", NULL, &b, NULL));
    OK(keepsock_datagram_endpoint(a, endpoint, sizeof endpoint, NULL, NULL));
    OK(keepsock_datagram_send_to(b, endpoint, "one", 3, NULL));
    OK(keepsock_datagram_recv(a, buf[0], sizeof buf[0], &info.value, sizeof info.value, NULL));
    UNTOUCHED(info);
    CHECK(info.value.len == 3 && memcmp(buf[0], "one", 3) == 0);

    OK(keepsock_datagram_send_to(b, endpoint, "two", 3, NULL));
    memset(items, 0, sizeof items);
    items[0].buf = buf[0];
    items[0].cap = sizeof buf[0];
    items[1].buf = buf[1];
    items[1].cap = sizeof buf[1];
    OK(keepsock_datagram_recv_batch(a, items, 2, sizeof items[0], &received, NULL));
    CHECK(received == 1 && items[0].info.len == 3 && memcmp(buf[0], "two", 3) == 0);
    keepsock_datagram_free(a);
    keepsock_datagram_free(b);
}

static void errors(void)
{
    keepsock_server *server = NULL;
    keepsock_client *client = NULL;
    keepsock_error *error = NULL;
    char endpoint[64];
    GUARDED(keepsock_attempt, attempt);

    /* The port is free again after the server is closed. */
    OK(keepsock_server_listen("127.0.0.1:0", NULL, &server, NULL));
    snprintf(endpoint, sizeof endpoint, "127.0.0.1:%d", keepsock_server_port(server));
    keepsock_server_free(server);
    CHECK(keepsock_client_connect(endpoint, NULL, &client, &error) == KEEPSOCK_ERR_REFUSED);
    CHECK(client == NULL && keepsock_error_status(error) == KEEPSOCK_ERR_REFUSED);
    CHECK(strstr(keepsock_error_message(error), endpoint) != NULL);
    OK(keepsock_error_attempt(error, 0, &attempt.value, sizeof attempt.value));
    UNTOUCHED(attempt);
    CHECK(attempt.value.status == KEEPSOCK_ERR_REFUSED);
    keepsock_error_free(error);
    CHECK(strcmp(keepsock_status_name(-12), "KEEPSOCK_ERR_TIMED_OUT") == 0);
}

int main(void)
{
    stream();
    datagrams();
    errors();
    printf("compiled with %d.%d, runs with %s\n", KEEPSOCK_VERSION_MAJOR, KEEPSOCK_VERSION_MINOR, keepsock_version());
    return 0;
}
