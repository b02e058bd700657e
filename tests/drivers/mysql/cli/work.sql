SELECT 1 AS one, 'täxt' AS two, NULL AS three, 2.50 AS four;
SELECT DATABASE();
CREATE TABLE cli_items (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(40), made DATETIME(6), data BLOB);
INSERT INTO cli_items (name, made, data) VALUES ('a', '2024-02-29 12:00:00.5', x'00ff'), ('b''c', NULL, NULL);
SELECT id, name, made, HEX(data) FROM cli_items ORDER BY id;
UPDATE cli_items SET name = 'z' WHERE id = 1;
SELECT ROW_COUNT();
INSERT INTO cli_items (id) VALUES (1);
SELEC 1;
SELECT * FROM cli_missing;
SHOW WARNINGS;
CREATE TABLE cli_loaded (id INT, name VARCHAR(40)) CHARACTER SET utf8mb4;
LOAD DATA LOCAL INFILE '@FILE@' INTO TABLE cli_loaded CHARACTER SET utf8mb4 FIELDS TERMINATED BY ',' OPTIONALLY ENCLOSED BY '"';
SELECT * FROM cli_loaded ORDER BY id;
/*!50000 SELECT 'executed' AS comment */;
DELIMITER //
CREATE PROCEDURE cli_two(IN n INT) BEGIN SELECT n; SELECT n + 1 AS more; END//
SELECT 1; SELECT 2; SELECT missing; SELECT 3//
DELIMITER ;
CALL cli_two(7);
START TRANSACTION;
INSERT INTO cli_items (name) VALUES ('gone');
ROLLBACK;
SELECT COUNT(*) FROM cli_items;
PREPARE p FROM 'SELECT ? + 1';
SET @a = 41;
EXECUTE p USING @a;
DEALLOCATE PREPARE p;
SELECT REPEAT('x', 70000) = REPEAT('x', 70000) AS same;
USE mysql
SELECT DATABASE();
DROP PROCEDURE customers.cli_two;
DROP TABLE customers.cli_items, customers.cli_loaded;
