/* keep_accept CONNECTIONS READ_TIMEOUT_MS - keepsock: echoes to one connection after another */
#include "keep.h"

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    long connections = strtol(argv[1], NULL, 10), timeout = strtol(argv[2], NULL, 10);
    keepsock_error *error = NULL;

    alarm(GIVE_UP_AFTER_S);
    keepsock_server *server = listen_loopback(options_with(timeout));
    print_port(server);
    while (connections-- > 0) {
        keepsock_client *client = NULL;

        must(keepsock_server_accept(server, &client, &error), error);
        echo_until_end(client);
        keepsock_client_free(client);
    }
    keepsock_server_free(server);
    return 0;
}
