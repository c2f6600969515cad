/* The common part of the keepsock servers: options, a listener on a free loopback port, the echo. */
#ifndef KEEP_H
#define KEEP_H
#include "keep_must.h"
#include <sys/prctl.h>
#include <unistd.h>

/* A run that hangs must end. */
enum { GIVE_UP_AFTER_S = 120 };

/* Keepalive and NODELAY are on by default. */
static inline keepsock_options *options_with(long read_timeout_ms)
{
    keepsock_options *options = NULL;
    keepsock_error *error = NULL;

    must(keepsock_options_new(&options, &error), error);
    must(keepsock_options_set_backlog(options, 1024, &error), error);
    if (read_timeout_ms > 0)
        must(keepsock_options_set_read_timeout(options, read_timeout_ms, &error), error);
    return options;
}

/* Frees the options. */
static inline keepsock_server *listen_loopback(keepsock_options *options)
{
    keepsock_server *server = NULL;
    keepsock_error *error = NULL;

    /* Huge pages would show memory in steps of 2 MiB. */
    if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0)
        exit(1);
    must(keepsock_server_listen("127.0.0.1:0", options, &server, &error), error);
    keepsock_options_free(options);
    return server;
}

/* The clients start when the port is printed. */
static inline void print_port(keepsock_server *server)
{
    printf("port %u\n", (unsigned)keepsock_server_port(server));
    fflush(stdout);
}

static inline void echo_until_end(keepsock_client *client)
{
    keepsock_error *error = NULL;
    char buf[256];
    size_t got;

    for (;;) {
        must(keepsock_client_read(client, buf, sizeof buf, &got, &error), error);
        if (got == 0)
            return;
        must(keepsock_client_write_all(client, buf, got, &error), error);
    }
}
#endif
