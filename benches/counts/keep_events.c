/*
 * keep_events CONNECTIONS READ_TIMEOUT_MS [limits | connects N] - keepsock_server_serve_events: one loop
 *
 * limits: with a heartbeat, an idle timeout and a queue limit, none of which is reached in a run.
 * connects: N connects of the service are pending from the first connection on.
 * The main thread waits for the service, as in most programs.
 */
#include "events.h"
#include "keep.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>

enum { HOUR_MS = 3600 * 1000 };

static _Atomic(keepsock_service *) serving;
static long left;
static long connects, pending;

static void on_data(keepsock_conn conn, const void *buf, size_t len, void *user)
{
    keepsock_error *error = NULL;

    (void)user;
    if (*(const char *)buf == BROADCAST)
        must(keepsock_service_broadcast(serving, NULL, buf, len, NULL, NULL, NULL, NULL, &error), error);
    else
        must(keepsock_conn_send(conn, buf, len, &error), error);
}

/* Only the thread of the loop runs this. */
static void on_close(keepsock_conn conn, int32_t reason, void *user)
{
    (void)conn, (void)reason, (void)user;
    if (--left == 0)
        must(keepsock_service_stop(serving, NULL), NULL);
}

/* Connects to a listener whose queue is full: the kernel drops each SYN. */
static void connect_to_full_queue(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct tcp_info info;
    keepsock_options *options = NULL;
    keepsock_error *error = NULL;
    char endpoint[32];

    /* A queue of length 0 has room for one connection, which arrives when connect(2) has returned or later. */
    if (listener < 0 || client < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) != 0
        || listen(listener, 0) != 0 || getsockname(listener, (struct sockaddr *)&address, &length) != 0
        || connect(client, (struct sockaddr *)&address, sizeof address) != 0) {
        perror("a full queue");
        exit(1);
    }
    do {
        length = sizeof info;
        if (getsockopt(listener, IPPROTO_TCP, TCP_INFO, &info, &length) != 0)
            exit(1);
    } while (info.tcpi_unacked <= info.tcpi_sacked); /* tcp_info of a listener: queued connections, limit */
    snprintf(endpoint, sizeof endpoint, "127.0.0.1:%u", (unsigned)ntohs(address.sin_port));
    must(keepsock_options_new(&options, &error), error);
    must(keepsock_options_set_connect_timeout(options, HOUR_MS, &error), error);
    for (; pending < connects; pending++)
        must(keepsock_service_connect(serving, endpoint, options, NULL, &error), error);
    keepsock_options_free(options);
}

/* Inside a callback, a connect does not wake the loop, so the number of system calls does not vary. */
static void on_open(keepsock_conn conn, void *user)
{
    (void)conn, (void)user;
    if (pending < connects)
        connect_to_full_queue();
}

/* At the end of the service. */
static void on_connect_failed(const keepsock_error *error, void *conn_user, void *user)
{
    (void)conn_user, (void)user;
    if (keepsock_error_status(error) == KEEPSOCK_ERR_CLOSED)
        pending--;
}

int main(int argc, char **argv)
{
    const keepsock_callbacks callbacks = {
        .size = sizeof callbacks, .on_open = on_open, .on_data = on_data, .on_close = on_close,
        .on_connect_failed = on_connect_failed
    };
    keepsock_serve_options *serve = NULL;
    keepsock_service *service = NULL;
    keepsock_error *error = NULL;

    if (argc < 3)
        return 2;
    left = strtol(argv[1], NULL, 10);
    if (argc == 5 && strcmp(argv[3], "connects") == 0)
        connects = strtol(argv[4], NULL, 10);
    alarm(GIVE_UP_AFTER_S);
    raise_descriptor_limit();

    keepsock_options *options = options_with(0);
    if (argc == 4 && strcmp(argv[3], "limits") == 0) {
        must(keepsock_options_set_heartbeat(options, HOUR_MS, "PING\r\n", 6, &error), error);
        must(keepsock_options_set_idle_timeout(options, 3 * (int64_t)HOUR_MS, &error), error);
    }
    keepsock_server *server = listen_loopback(options);
    must(keepsock_serve_options_new(&serve, &error), error);
    /* A full service accepts no request to connect. */
    must(keepsock_serve_options_set_max_connections(serve, (uint32_t)(left + connects), &error), error);
    must(keepsock_serve_options_set_queue_limit(serve, 64 * 1024, &error), error);
    must(keepsock_server_serve_events(server, serve, &callbacks, NULL, &service, &error), error);
    serving = service;
    keepsock_serve_options_free(serve);
    print_port(server);
    must(keepsock_service_wait_stopped(service, KEEPSOCK_INFINITE, &error), error);
    must(keepsock_service_drain(service, 5000, NULL, NULL, &error), error);
    keepsock_service_free(service);
    keepsock_server_free(server);
    if (pending != 0) {
        fprintf(stderr, "%ld connects were not pending until the end\n", pending);
        return 1;
    }
    return 0;
}
