/*
 * keep_events CONNECTIONS READ_TIMEOUT_MS [limits] - keepsock_server_serve_events: one loop
 *
 * limits: with a heartbeat, an idle limit and a byte cap, none of them due within a run.
 */
#include "events.h"
#include "keep.h"
#include <semaphore.h>
#include <stdatomic.h>
#include <string.h>

enum { HOUR_MS = 3600 * 1000 };

static _Atomic(keepsock_service *) serving;
static long left;
static sem_t all_done;

static void on_data(keepsock_connection *connection, const void *data, size_t len, void *user)
{
    keepsock_error *error = NULL;

    (void)user;
    if (*(const char *)data == BROADCAST)
        must(keepsock_service_broadcast(serving, data, len, NULL, 0, &error), error);
    else
        must(keepsock_connection_send(connection, data, len, &error), error);
}

/* Only the loop's thread comes here. */
static void on_close(keepsock_connection *connection, int32_t end, void *user)
{
    (void)connection, (void)end, (void)user;
    if (--left == 0)
        sem_post(&all_done);
}

int main(int argc, char **argv)
{
    const keepsock_callbacks callbacks = {.size = sizeof callbacks, .data = on_data, .close = on_close};
    keepsock_serve_options *serve = NULL;
    keepsock_service *service = NULL;
    keepsock_error *error = NULL;

    if (argc < 3)
        return 2;
    left = strtol(argv[1], NULL, 10);
    alarm(GIVE_UP_AFTER_S);
    raise_descriptor_limit();
    sem_init(&all_done, 0, 0);

    keepsock_options *options = options_with(0);
    if (argc == 4 && strcmp(argv[3], "limits") == 0) {
        must(keepsock_options_set_heartbeat(options, "PING\r\n", 6, HOUR_MS, &error), error);
        must(keepsock_options_set_idle_limit(options, 3 * (int64_t)HOUR_MS, &error), error);
    }
    keepsock_server *server = listen_loopback(options);
    must(keepsock_serve_options_new(&serve, &error), error);
    must(keepsock_serve_options_set_max_connections(serve, (uint32_t)left, &error), error);
    must(keepsock_serve_options_set_max_queued(serve, 64 * 1024, &error), error);
    must(keepsock_server_serve_events(server, serve, &callbacks, NULL, &service, &error), error);
    serving = service;
    keepsock_serve_options_free(serve);
    sem_wait(&all_done);
    must(keepsock_service_drain(service, 5000, NULL, NULL, &error), error);
    keepsock_service_free(service);
    keepsock_server_free(server);
    return 0;
}
