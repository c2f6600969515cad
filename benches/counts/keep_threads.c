/*
 * keep_threads CONNECTIONS READ_TIMEOUT_MS - keepsock_server_serve: a thread for each connection
 *
 * The main thread waits in the service, as that of most programs does.
 */
#include "keep.h"
#include <stdatomic.h>

static _Atomic(keepsock_service *) serving;
static atomic_long left;

static void attend(keepsock_client *client, void *user)
{
    (void)user;
    echo_until_end(client);
    if (atomic_fetch_sub(&left, 1) == 1)
        must(keepsock_service_stop(serving, NULL), NULL);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    long connections = strtol(argv[1], NULL, 10), timeout = strtol(argv[2], NULL, 10);
    keepsock_service *service = NULL;
    keepsock_error *error = NULL;

    alarm(GIVE_UP_AFTER_S);
    left = connections;

    keepsock_server *server = listen_loopback(options_with(timeout));
    must(keepsock_server_serve(server, NULL, attend, NULL, &service, &error), error);
    serving = service;
    print_port(server);
    must(keepsock_service_wait_stopped(service, KEEPSOCK_INFINITE, &error), error);
    must(keepsock_service_drain(service, 5000, NULL, NULL, &error), error);
    keepsock_service_free(service);
    keepsock_server_free(server);
    return 0;
}
