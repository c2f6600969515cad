/* keep_threads CONNECTIONS READ_TIMEOUT_MS - keepsock_server_serve: a thread for each connection */
#include "keep.h"
#include <semaphore.h>
#include <stdatomic.h>

static atomic_long left;
static sem_t all_done;

static void attend(keepsock_client *client, void *user)
{
    (void)user;
    echo_until_end(client);
    if (atomic_fetch_sub(&left, 1) == 1)
        sem_post(&all_done);
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
    sem_init(&all_done, 0, 0);

    keepsock_server *server = listen_loopback(options_with(timeout));
    must(keepsock_server_serve(server, NULL, attend, NULL, &service, &error), error);
    sem_wait(&all_done);
    must(keepsock_service_drain(service, 5000, NULL, NULL, &error), error);
    keepsock_service_free(service);
    keepsock_server_free(server);
    return 0;
}
