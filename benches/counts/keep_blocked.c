/* keep_blocked stream|datagram|raw N - reads that would block: N reads without an error object */
#include "keep.h"
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

static keepsock_client *stream_that_is_silent(void)
{
    keepsock_server *server = listen_loopback(options_with(0));
    keepsock_client *client = NULL;
    keepsock_error *error = NULL;
    char where[KEEPSOCK_TEXT_SIZE];

    must(keepsock_server_endpoint(server, 0, where, sizeof where, NULL, &error), error);
    must(keepsock_client_connect(where, NULL, &client, &error), error);
    must(keepsock_client_set_nonblocking(client, true, &error), error);
    return client;
}

static keepsock_datagram *datagram_that_is_silent(void)
{
    keepsock_datagram *datagram = NULL;
    keepsock_error *error = NULL;

    must(keepsock_datagram_bind("127.0.0.1:0", NULL, &datagram, &error), error);
    must(keepsock_datagram_set_nonblocking(datagram, true, &error), error);
    return datagram;
}

int main(int argc, char **argv)
{
    keepsock_client *client = NULL;
    keepsock_datagram *datagram = NULL;
    char buf[64];

    if (argc != 3) {
        fprintf(stderr, "usage: %s stream|datagram|raw N\n", argv[0]);
        return 2;
    }
    alarm(GIVE_UP_AFTER_S);
    if (strcmp(argv[1], "datagram") == 0)
        datagram = datagram_that_is_silent();
    else
        client = stream_that_is_silent();
    for (long n = strtol(argv[2], NULL, 10); n > 0; n--) {
        keepsock_datagram_info info;
        size_t got;
        int32_t status;

        if (datagram != NULL)
            status = keepsock_datagram_recv(datagram, buf, sizeof buf, &info, sizeof info, NULL);
        else
            status = keepsock_client_read(client, buf, sizeof buf, &got, NULL);
        if (status != KEEPSOCK_ERR_WOULD_BLOCK)
            return 1;
    }
    return 0;
}
