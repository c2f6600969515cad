/*
 * mqtt.c - a client of an MQTT 3.1.1 broker, which subscribes again
 *
 *     mqtt host:port topic [sessions [heartbeat_ms]]
 *
 * Subscribes to the topic filter with QoS 1, acknowledges its messages, and
 * prints them. PINGREQ is the heartbeat: a broker that does not answer it within
 * twice its interval is lost. The client connects again after each loss, and
 * ends after that number of connections. Exit status: 0 after them, 1 failed, 2
 * wrong arguments.
 */
#include <keepsock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The types of packets (MQTT 3.1.1, section 2.2.1), with their flags. */
enum { CONNECT = 0x10, CONNACK = 0x20, PUBLISH = 0x30, PUBACK = 0x40, SUBSCRIBE = 0x82, SUBACK = 0x90 };
static const unsigned char PINGREQ[] = {0xc0, 0};
static const char CLIENT_ID[] = "keepsock-example";

/* The packet type, then the remaining length (LEB128). A message is a whole packet. */
static const keepsock_framing framing = {
    .size = sizeof framing,
    .kind = KEEPSOCK_FRAMING_LENGTH_FIELD,
    .length_format = KEEPSOCK_LENGTH_FORMAT_VARINT_MQTT,
    .length_offset = 1,
    .max = 65536,
};

static unsigned char packet[65536];

/* Appends a string after its length of two bytes. */
static size_t put_string(unsigned char *to, const char *text)
{
    size_t len = strlen(text);

    to[0] = (unsigned char)(len >> 8);
    to[1] = (unsigned char)len;
    memcpy(to + 2, text, len);
    return 2 + len;
}

/* Sends a packet with that content, which is below 128 bytes: its length has one byte. */
static int32_t send_packet(keepsock_client *client, int type, const void *content, size_t len, keepsock_error **error)
{
    unsigned char out[130] = {(unsigned char)type, (unsigned char)len};

    memcpy(out + 2, content, len);
    return keepsock_client_write_message(client, &framing, out, 2 + len, error);
}

/* Prints the message of a PUBLISH packet, and acknowledges it. */
static int32_t print_message(keepsock_client *client, size_t len, keepsock_error **error)
{
    size_t at = 1, topic, text;

    while (packet[at++] & 0x80) /* the remaining length, which the library has checked */
        ;
    if (len < at + 2)
        return KEEPSOCK_ERR_MALFORMED;
    topic = at + 2;
    text = topic + (size_t)(packet[at] << 8 | packet[at + 1]);
    at = text;
    if (packet[0] & 0x06) /* QoS 1 or 2: the packet has a number */
        text += 2;
    if (len < text)
        return KEEPSOCK_ERR_MALFORMED;
    printf("message %.*s %.*s\n", (int)(at - topic), (char *)packet + topic, (int)(len - text), (char *)packet + text);
    return text == at ? KEEPSOCK_OK : send_packet(client, PUBACK, packet + at, 2, error);
}

/* Uses one connection until it is lost. Returns the reason. */
static int32_t session(keepsock_client *client, const char *topic, int64_t heartbeat_ms, bool *worked,
                       keepsock_error **error)
{
    /* Protocol level 4, a clean session, and the keep-alive time in seconds. */
    unsigned char content[128] = {0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, (unsigned char)(10 + heartbeat_ms / 1000 * 2)};
    size_t len = 10 + put_string(content + 10, CLIENT_ID);
    int32_t status = send_packet(client, CONNECT, content, len, error);

    while (status == KEEPSOCK_OK) {
        status = keepsock_client_read_message(client, &framing, packet, sizeof packet, &len, error);
        if (status != KEEPSOCK_OK)
            break;
        switch (packet[0] & 0xf0) {
        case CONNACK:
            if (len != 4 || packet[3] != 0)
                return KEEPSOCK_ERR_REFUSED;
            /* The broker knows no subscription of a new connection. */
            content[0] = 0;
            content[1] = 1; /* the number of this packet */
            len = 2 + put_string(content + 2, topic);
            content[len++] = 1; /* QoS */
            status = send_packet(client, SUBSCRIBE, content, len, error);
            break;
        case SUBACK:
            if (len != 5 || packet[4] == 0x80)
                return KEEPSOCK_ERR_REFUSED;
            puts("subscribed");
            break;
        case PUBLISH: /* also before SUBACK */
            status = print_message(client, len, error);
            *worked = true;
            break;
        default: /* the answer to a heartbeat */
            break;
        }
    }
    return status;
}

int main(int argc, char **argv)
{
    long sessions = argc > 3 ? strtol(argv[3], NULL, 10) : -1; /* below 0: no limit */
    int64_t heartbeat_ms = argc > 4 ? strtol(argv[4], NULL, 10) : 5000;
    keepsock_options *options = NULL;
    keepsock_reconnect *reconnect = NULL;
    keepsock_client *client = NULL;
    keepsock_error *error = NULL;

    if (argc < 3 || strlen(argv[2]) > 100 || heartbeat_ms > 100000) {
        fprintf(stderr, "usage: mqtt host:port topic [sessions [heartbeat_ms]]\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    if (keepsock_options_new(&options, &error) != KEEPSOCK_OK
        || keepsock_options_set_connect_timeout(options, 5000, &error) != KEEPSOCK_OK
        || keepsock_options_set_dead_after(options, 10000, &error) != KEEPSOCK_OK
        || keepsock_options_set_heartbeat(options, heartbeat_ms, PINGREQ, sizeof PINGREQ, &error) != KEEPSOCK_OK
        || keepsock_options_set_heartbeat_timeout(options, 2 * heartbeat_ms, &error) != KEEPSOCK_OK
        || keepsock_reconnect_new(argv[1], options, &reconnect, &error) != KEEPSOCK_OK
        || keepsock_reconnect_set_backoff(reconnect, 50, 10000, &error) != KEEPSOCK_OK)
        goto done;

    while (sessions != 0 && keepsock_reconnect_connect(reconnect, &client, &error) == KEEPSOCK_OK) {
        bool worked = false;
        int32_t status = session(client, argv[2], heartbeat_ms, &worked, &error);

        printf("lost: %s\n", error != NULL ? keepsock_error_message(error) : keepsock_status_str(status));
        keepsock_error_free(error);
        error = NULL;
        keepsock_client_free(client);
        client = NULL;
        if (sessions > 0)
            sessions--;
        /* Without this, a connection that was short is a failure, and the next one is delayed. */
        if (worked)
            keepsock_reconnect_reset(reconnect, NULL);
    }

done:
    keepsock_error_print("mqtt", &error);
    keepsock_client_free(client);
    keepsock_reconnect_free(reconnect);
    keepsock_options_free(options);
    return sessions == 0 ? 0 : 1;
}
