import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.file.Files;
import java.time.Duration;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.EmitStrategy;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.state.Stores;

/** Tumbling windows of 100 ms in memory, without a changelog; the result when a window closes. */
public class Peer {
  public record Reading(long ts, double temperature, double pressure, double speed, double load) {}

  public static void main(String[] args) throws Exception {
    ObjectMapper json = new ObjectMapper();
    Serde<Reading> serde =
        Serdes.serdeFrom(
            (topic, reading) -> {
              try {
                return json.writeValueAsBytes(reading);
              } catch (Exception error) {
                throw new RuntimeException(error);
              }
            },
            (topic, bytes) -> {
              try {
                return bytes == null ? null : json.readValue(bytes, Reading.class);
              } catch (Exception error) {
                throw new RuntimeException(error);
              }
            });
    StreamsBuilder builder = new StreamsBuilder();
    builder.stream(
            args[1],
            Consumed.with(Serdes.String(), serde)
                .withTimestampExtractor((record, before) -> ((Reading) record.value()).ts() / 1000))
        .groupByKey()
        .windowedBy(TimeWindows.ofSizeWithNoGrace(Duration.ofMillis(100)))
        .emitStrategy(EmitStrategy.onWindowClose())
        .reduce(
            (before, after) -> after.ts() >= before.ts() ? after : before,
            Materialized.<String, Reading>as(
                    Stores.inMemoryWindowStore(
                        "windows", Duration.ofMinutes(1), Duration.ofMillis(100), false))
                .withKeySerde(Serdes.String())
                .withValueSerde(serde)
                .withLoggingDisabled())
        .toStream((key, value) -> key.key())
        .to(args[2], Produced.with(Serdes.String(), serde));
    Properties settings = new Properties();
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, args[2]);
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]);
    settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
    settings.put(StreamsConfig.STATE_DIR_CONFIG, Files.createTempDirectory("peer").toString());
    settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
    // Once a second else; at every reading it is slow.
    settings.put("__emit.interval.ms.kstreams.windowed.aggregation__", 100L);
    KafkaStreams streams = new KafkaStreams(builder.build(), settings);
    Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
    streams.start();
  }
}
